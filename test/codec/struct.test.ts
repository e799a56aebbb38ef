import { expect } from 'chai';
import { bits64, bytes, i32, struct, u16, u32, u64, u8 } from '#src/codec/struct.js';

const FIELDS = { a: u8, b: u16, c: u32, d: i32, e: u64, f: bits64, g: bytes(3) };
const BIG = struct('big', 'big', FIELDS);
const LITTLE = struct('little', 'little', FIELDS);
const VALUES = {
  a: 0x12,
  b: 0x1234,
  c: 0xfedcba98,
  d: -2,
  e: 0x1f_ffff_ffff_fffe,
  f: 0xfedc_ba98_7654_3210n,
  g: new Uint8Array([1, 2, 3]),
};

describe('struct()', () => {
  it('lays fields out without padding', () => {
    expect(BIG.offsets).to.deep.equal({ a: 0, b: 1, c: 3, d: 7, e: 11, f: 19, g: 27 });
    expect(BIG.size).to.equal(30);
  });

  for (const layout of [BIG, LITTLE]) {
    it(`reads what it wrote, ${layout.name}-endian, at any place of a view`, () => {
      const view = new DataView(new ArrayBuffer(64), 3);
      layout.write(view, 5, VALUES);
      expect(layout.read(view, 5)).to.deep.equal(VALUES);
      expect(layout.get(view, 5, 'e')).to.equal(VALUES.e);
      layout.set(view, 5, 'b', 7);
      expect(layout.get(view, 5, 'b')).to.equal(7);
      expect(view.getUint8(4)).to.equal(0);
      expect(view.getUint8(5 + layout.size)).to.equal(0);
    });
  }

  it('writes in the byte order that it was given', () => {
    const view = new DataView(new ArrayBuffer(30));
    BIG.write(view, 0, { e: 0x0102030405 });
    expect([...new Uint8Array(view.buffer, 11, 8)]).to.deep.equal([0, 0, 0, 1, 2, 3, 4, 5]);
    LITTLE.write(view, 0, { e: 0x0102030405 });
    expect([...new Uint8Array(view.buffer, 11, 8)]).to.deep.equal([5, 4, 3, 2, 1, 0, 0, 0]);
  });

  it('writes zeroes into the fields that are not given', () => {
    const view = new DataView(new ArrayBuffer(30));
    new Uint8Array(view.buffer).fill(0xff);
    BIG.write(view, 0, { a: 1 });
    expect([...new Uint8Array(view.buffer)]).to.deep.equal([1, ...new Array(29).fill(0)]);
  });

  it('reads 64 bits that are not exact as more than any limit', () => {
    const view = new DataView(new ArrayBuffer(30));
    BIG.set(view, 0, 'f', 0xffff_ffff_ffff_ffffn);
    expect(u64.read(view, 19, false)).to.be.greaterThan(Number.MAX_SAFE_INTEGER);
  });
});
