import { expect } from 'chai';
import { formatClock, formatSize, padLeft, padRight } from '#src/cli/human.js';

describe('formatSize()', () => {
  // What QEMU 7.2 prints. Beyond these, info.integration.test.ts compares with qemu-img itself.
  const cases: [size: number, text: string][] = [
    [0, '0 B'],
    [999, '999 B'],
    [1000, '0.977 KiB'],
    [1023, '0.999 KiB'],
    [1024, '1 KiB'],
    [1152, '1.12 KiB'],
    [1408, '1.38 KiB'],
    [10 * 1024 + 51, '10 KiB'],
    [1023488, '1e+03 KiB'],
    [1024000, '0.977 MiB'],
    [5 * 2 ** 30, '5 GiB'],
    [2 ** 50, '1 PiB'],
    [2 ** 63, '8 EiB'],
  ];
  for (const [size, text] of cases) {
    it(`prints ${size} as ${text}`, () => {
      expect(formatSize(size)).to.equal(text);
    });
  }
});

describe('formatClock()', () => {
  it('prints hours beyond two digits and cuts below milliseconds', () => {
    expect(formatClock(0n)).to.equal('00:00:00.000');
    expect(formatClock(1_234_567_890_123n)).to.equal('00:20:34.567');
    expect(formatClock(2n ** 63n + 7n)).to.equal('2562047:47:16.854');
  });
});

describe('padLeft(), padRight()', () => {
  it('count bytes, and never cut', () => {
    expect(padRight('é', 4)).to.equal('é  ');
    expect(padLeft('é', 4)).to.equal('  é');
    expect(padLeft('abcd', 2)).to.equal('abcd');
  });
});
