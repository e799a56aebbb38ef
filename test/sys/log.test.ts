import { expect } from 'chai';
import { printable, printableLines } from '#src/sys/log.js';

const code = (...points: number[]): string => String.fromCharCode(...points);

describe('printable()', () => {
  it('escapes C0, DEL, C1 and line separators, and nothing else', () => {
    expect(printable(`a\n\t${code(0x1b)}[2J`)).to.equal(String.raw`a\n\t\u001b[2J`);
    expect(printable(code(0x7f, 0x80, 0x9b, 0x9f))).to.equal(String.raw`\u007f\u0080\u009b\u009f`);
    expect(printable(code(0x2028, 0x2029))).to.equal(String.raw`\u2028\u2029`);
    const plain = 'vm 1.qcow2, "é" \\ – 日本 🙂';
    expect(printable(plain)).to.equal(plain);
  });

  it('printableLines() keeps line breaks, and changes nothing that is printable', () => {
    const lines = printableLines(`Error: x${code(0x1b)}\n    at y`);
    expect(lines).to.equal('Error: x\\u001b\n    at y');
    expect(printableLines(lines)).to.equal(lines);
  });
});
