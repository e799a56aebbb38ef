import { expect } from 'chai';
import { parseExactSize, parseSize } from '#src/codec/size-text.js';

describe('parseSize()', () => {
  const sizes: [text: string, size: number | 'invalid' | 'range', unit?: 'M'][] = [
    ['0', 0],
    ['512', 512],
    ['010', 10],
    ['64k', 65536],
    ['64K', 65536],
    ['512b', 512],
    ['1.5G', 1.5 * 2 ** 30],
    ['.5G', 'invalid'],
    ['1.G', 2 ** 30],
    ['1.0', 1],
    ['1.5', 'invalid'],
    ['1.5b', 'invalid'],
    ['0x10000', 65536],
    ['0x1k', 1024],
    ['0x1b', 27],
    [' +5k', 5120],
    ['1T', 2 ** 40],
    ['1P', 2 ** 50],
    ['7E', 7 * 2 ** 60],
    ['16E', 'range'],
    ['99999999999999999999', 'range'],
    ['-1', 'invalid'],
    ['', 'invalid'],
    ['k', 'invalid'],
    ['1kk', 'invalid'],
    ['1 k', 'invalid'],
    ['1e3', 'invalid'],
    ['2', 2 << 20, 'M'],
    ['2k', 2048, 'M'],
  ];
  for (const [text, size, unit] of sizes) {
    it(`takes '${text}' for ${size}${unit === undefined ? '' : ` in ${unit}`}`, () => {
      expect(parseSize(text, unit)).to.equal(size);
    });
  }

  it('is exact above 2^53 where it is asked to be', () => {
    expect(parseExactSize('9007199254740993')).to.equal(9007199254740993n);
    expect(parseExactSize('0xffffffffffffffff')).to.equal(2n ** 64n - 1n);
  });
});
