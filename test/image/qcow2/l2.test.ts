import { expect } from 'chai';
import { EXTENT } from '#src/image/extent.js';
import { geometryOf } from '#src/image/qcow2/geometry.js';
import {
  type DecodePiece,
  hostOffsetOf,
  isCopied,
  Piece,
  standardDecoder,
} from '#src/image/qcow2/l2.js';
import { subclusterDecoder } from '#src/image/qcow2/subclusters.js';

const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;

function geometry(clusterBits: number, extendedL2 = false, version = 3) {
  return geometryOf({ version, clusterBits, extendedL2, refcountOrder: 4 });
}

/** Decodes an entry, given as one or two numbers of 64 bits. */
function decode(decoder: DecodePiece, within: number, entry: bigint, bitmap = 0n): Piece {
  const words = new Uint32Array(6);
  for (const [n, value] of [entry, bitmap].entries()) {
    words[2 + 2 * n] = Number(value & 0xffff_ffffn);
    words[3 + 2 * n] = Number(value >> 32n);
  }
  const piece = new Piece();
  piece.problem = 'of an entry before';
  decoder(words, 2, within, piece);
  return piece;
}

describe('hostOffsetOf()', () => {
  it('takes bits 9 to 55', () => {
    expect(hostOffsetOf(0xffff_ffff, 0xffff_ffff)).to.equal(2 ** 56 - 512);
    expect(hostOffsetOf(0x1ff, 0xff00_0000)).to.equal(0);
    expect(hostOffsetOf(0x8000_0000, 0)).to.equal(2 ** 31);
  });

  it('isCopied() takes bit 63', () => {
    expect(isCopied(0x8000_0000)).to.equal(true);
    expect(isCopied(0x7fff_ffff)).to.equal(false);
  });
});

describe('standardDecoder()', () => {
  const decoder = standardDecoder(geometry(16), false);
  const external = standardDecoder(geometry(16), true);

  it('tells data, from the place asked for to the cluster end', () => {
    const piece = decode(decoder, 100, COPIED | 0x50000n);
    expect(piece).to.include({ kind: EXTENT.DATA, hostOffset: 0x50064, length: 65436 });
    expect(piece.problem).to.equal(null);
  });

  it('tells unallocated clusters, COPIED or not', () => {
    for (const entry of [0n, COPIED]) {
      const piece = decode(decoder, 100, entry);
      expect(piece).to.include({ kind: EXTENT.UNALLOCATED, hostOffset: 0, problem: null });
    }
  });

  it('tells zero clusters with a host cluster or without', () => {
    expect(decode(decoder, 8, 1n)).to.include({ kind: EXTENT.ZERO, hostOffset: 0, problem: null });
    const allocated = decode(decoder, 8, 0x50001n);
    expect(allocated).to.include({ kind: EXTENT.ZERO, hostOffset: 0x50008, problem: null });
  });

  it('finds zero clusters wrong in version 2', () => {
    const old = standardDecoder(geometry(16, false, 2), false);
    expect(decode(old, 0, 1n).problem).to.match(/version 2/);
  });

  it('finds offsets wrong that are not on a cluster', () => {
    for (const entry of [0x50200n, 0x50201n]) {
      expect(decode(decoder, 0, entry).problem).to.match(/0x50200 is not a multiple of 65536/);
    }
    const small = standardDecoder(geometry(9), false);
    expect(decode(small, 0, 0x50200n).problem).to.equal(null);
  });

  it('ignores reserved bits', () => {
    const piece = decode(decoder, 0, 0x3f00_0000_0005_01fen);
    expect(piece).to.include({ kind: EXTENT.DATA, hostOffset: 0x50000, problem: null });
  });

  it('takes offset 0 for data in an external file where COPIED is set', () => {
    expect(decode(external, 7, COPIED)).to.include({ kind: EXTENT.DATA, hostOffset: 7 });
    expect(decode(external, 7, 0n).kind).to.equal(EXTENT.UNALLOCATED);
  });

  for (const clusterBits of [9, 12, 16, 21]) {
    it(`tells offset and length of compressed data, ${2 ** clusterBits}-byte clusters`, () => {
      const shift = BigInt(70 - clusterBits);
      const most = (1n << BigInt(clusterBits - 8)) - 1n;
      const compact = standardDecoder(geometry(clusterBits), false);
      for (const [at, sectors] of [
        [0x123457n, 0n],
        [0x8000_0000n, most],
        [(1n << 40n) + 511n, most],
      ] as const) {
        const piece = decode(compact, 3, COMPRESSED | (sectors << shift) | at);
        expect(piece).to.include({
          kind: EXTENT.COMPRESSED,
          length: 2 ** clusterBits - 3,
          hostOffset: Number(at),
          hostLength: (Number(sectors) + 1) * 512 - (Number(at) % 512),
          problem: null,
        });
      }
    });
  }

  it('finds compressed data wrong that lies nowhere', () => {
    const small = standardDecoder(geometry(9), false);
    expect(decode(small, 0, COMPRESSED | (1n << 60n)).problem).to.match(/impossible offset/);
    expect(decode(external, 0, COMPRESSED | 0x50000n).problem).to.match(/external data file/);
  });
});

describe('subclusterDecoder()', () => {
  const decoder = subclusterDecoder(geometry(16, true), false);
  const size = 2048;
  const bitmap = (allocated: number, zero: number) =>
    (BigInt(zero >>> 0) << 32n) | BigInt(allocated >>> 0);

  it('tells runs of equal subclusters', () => {
    const map = bitmap(0x0000_000f, 0xf000_0000);
    const at = (within: number) => decode(decoder, within, 0x50000n, map);
    expect(at(0)).to.include({ kind: EXTENT.DATA, length: 4 * size, hostOffset: 0x50000 });
    expect(at(size + 5)).to.include({ kind: EXTENT.DATA, length: 3 * size - 5 });
    expect(at(4 * size)).to.include({ kind: EXTENT.UNALLOCATED, length: 24 * size });
    expect(at(28 * size + 1)).to.include({ kind: EXTENT.ZERO, length: 4 * size - 1 });
    expect(at(31 * size)).to.include({ kind: EXTENT.ZERO, hostOffset: 0x50000 + 31 * size });
  });

  it('tells zero subclusters without a host cluster', () => {
    const piece = decode(decoder, size, 0n, bitmap(0, 0xffff_ffff));
    expect(piece).to.include({ kind: EXTENT.ZERO, length: 31 * size, hostOffset: 0 });
    expect(piece.problem).to.equal(null);
  });

  it('ignores the bitmap of compressed clusters', () => {
    const piece = decode(decoder, size, COMPRESSED | 0x50000n, bitmap(0xffff_ffff, 0xffff_ffff));
    expect(piece).to.include({ kind: EXTENT.COMPRESSED, length: 31 * size, problem: null });
  });

  it('finds bitmaps wrong that contradict themselves or the entry', () => {
    expect(decode(decoder, 0, 0x50000n, bitmap(4, 4)).problem).to.match(/both allocated and zero/);
    expect(decode(decoder, 0, 0n, bitmap(4, 0)).problem).to.match(/unallocated cluster/);
    expect(decode(decoder, 0, 0x50200n, bitmap(4, 0)).problem).to.match(/not a multiple/);
  });

  it('takes offset 0 for data in an external file where COPIED is set', () => {
    const external = subclusterDecoder(geometry(16, true), true);
    const piece = decode(external, 9, COPIED, bitmap(1, 0));
    expect(piece).to.include({ kind: EXTENT.DATA, hostOffset: 9, problem: null });
  });
});
