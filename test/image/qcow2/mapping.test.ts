import { expect } from 'chai';
import { writeImage } from '../../helpers/image-builder.js';
import type { ClusterSpec, ImageSpec } from '../../helpers/image-spec.js';
import { pattern } from '../../helpers/random.js';
import { dataRuns, readDisk, withImage } from '../../helpers/read.js';
import { useTempFolder } from '../../helpers/temp.js';

/** A kind of cluster: how it is stored, and what it reads over the bytes below. */
interface Kind {
  readonly store: (bytes: Buffer) => ClusterSpec | undefined;
  readonly read: (bytes: Buffer, below: Buffer) => Buffer;
}

const zeroes = (bytes: Buffer) => Buffer.alloc(bytes.length);

const STANDARD: readonly Kind[] = [
  { store: () => undefined, read: (_, below) => below },
  { store: (bytes) => ({ kind: 'data', bytes }), read: (bytes) => bytes },
  { store: (bytes) => ({ kind: 'compressed', bytes }), read: (bytes) => bytes },
  { store: () => ({ kind: 'zero' }), read: zeroes },
  { store: () => ({ kind: 'zero', preallocated: true }), read: zeroes },
];

/** A cluster of subclusters by two masks. */
function subclusters(allocated: number, zero: number, hostless = false): Kind {
  return {
    store: (bytes) => ({ kind: 'subclusters', bytes, allocated, zero, hostless }),
    read: (bytes, below) => {
      const size = bytes.length / 32;
      const parts = Array.from({ length: 32 }, (_, n) => {
        if (((zero >>> n) & 1) === 1) return Buffer.alloc(size);
        return (((allocated >>> n) & 1) === 1 ? bytes : below).subarray(n * size, (n + 1) * size);
      });
      return Buffer.concat(parts);
    },
  };
}

const EXTENDED: readonly Kind[] = [
  ...STANDARD,
  subclusters(0xffff, 0),
  subclusters(0xffff_0000, 0),
  subclusters(0xffff, 0xffff_0000),
  subclusters(0, 0xffff, true),
  subclusters(0, 0xffff_0000, true),
  subclusters(0x8000_0001, 0x4000_0002),
];

/** Every sequence of three kinds, with an empty cluster between two sequences. */
function sequences(kinds: readonly Kind[]): Kind[] {
  return kinds.flatMap((a) => kinds.flatMap((b) => kinds.flatMap((c) => [a, b, c, kinds[0]!])));
}

describe('Qcow2Mapping', () => {
  const temp = useTempFolder();

  for (const [what, spec, kinds] of [
    ['512 bytes', { clusterBits: 9 }, STANDARD],
    ['16 KiB', { clusterBits: 14 }, STANDARD],
    ['16 KiB and subclusters', { clusterBits: 14, extendedL2: true }, EXTENDED],
  ] as const) {
    it(`joins neighbours of any kinds rightly, with clusters of ${what}`, () => {
      const clusterSize = 2 ** spec.clusterBits;
      const disk = sequences(kinds);
      const below = pattern(99, disk.length * clusterSize);
      const base = temp.write('base', below);
      const clusters = new Map<number, ClusterSpec>();
      const expected: Buffer[] = [];
      for (const [index, kind] of disk.entries()) {
        const bytes = pattern(1000 + index, clusterSize);
        const stored = kind.store(bytes);
        if (stored !== undefined) clusters.set(index, stored);
        const start = index * clusterSize;
        expected.push(kind.read(bytes, below.subarray(start, start + clusterSize)));
      }
      const backing = { name: base, format: 'raw' };
      const path = temp.at('image');
      writeImage(path, { ...spec, size: below.length, backing, clusters });
      withImage(path, ({ image }) => {
        const whole = Buffer.concat(expected);
        expect(readDisk(image.disk).equals(whole)).to.equal(true);
        for (let at = 512; at < whole.length; at += 7 * clusterSize + 1024) {
          const length = Math.min(5 * clusterSize, whole.length - at);
          const part = readDisk(image.disk, at, length);
          expect(part.equals(whole.subarray(at, at + length)), `at ${at}`).to.equal(true);
        }
      });
    });
  }

  it('joins absent L2 tables, no further than to the next one', () => {
    // An L2 table of 512 bytes maps 32 KiB, and a slice of the L1 table names 64 of them.
    const coverage = 32768;
    const present = [0, 5, 64, 127, 128, 200, 256];
    const clusters = new Map<number, ClusterSpec>(
      present.map((table) => [table * 64 + 3, { kind: 'data', bytes: pattern(table + 1, 512) }]),
    );
    const size = 300 * coverage;
    const path = temp.at('image');
    writeImage(path, { clusterBits: 9, size, clusters });
    withImage(path, ({ image: { disk } }) => {
      for (const table of present) {
        const at = table * coverage + 3 * 512;
        for (const before of [0, 512, coverage / 2, coverage, 3 * coverage, 70 * coverage]) {
          if (at - before < 0) continue;
          const found = readDisk(disk, at - before, before + 512).subarray(before);
          expect(found.equals(pattern(table + 1, 512)), `${at} from ${before}`).to.equal(true);
        }
      }
      expect(dataRuns(disk)).to.deep.equal(
        present.map((table) => {
          const start = table * coverage + 3 * 512;
          return { start, end: start + 512 };
        }),
      );
    });
  });

  it('counts what a layer holds itself', () => {
    const bytes = pattern(1, 65536);
    const spec: ImageSpec = {
      size: 1 << 20,
      clusters: new Map<number, ClusterSpec>([
        [0, { kind: 'zero' }],
        [1, { kind: 'zero', preallocated: true }],
        [2, { kind: 'data', bytes }],
        [3, { kind: 'compressed', bytes }],
      ]),
    };
    const path = temp.at('image');
    writeImage(path, spec);
    withImage(path, ({ image: { disk } }) => {
      expect(disk.allocatedWithin(0, disk.size, 100)).to.equal(3 * 65536);
      expect(disk.allocatedWithin(65536 + 512, 3 * 65536, 100)).to.equal(2 * 65536 - 512);
      expect(disk.allocatedWithin(0, disk.size, 2)).to.equal(undefined);
    });
  });

  it('finds the hole behind the end of a shorter layer', () => {
    temp.write('base', pattern(1, 100_352));
    const path = temp.at('image');
    writeImage(path, { size: 1 << 20, backing: { name: 'base', format: 'raw' } });
    withImage(path, ({ image: { disk } }) => {
      expect(dataRuns(disk)).to.deep.equal([{ start: 0, end: 100_352 }]);
    });
  });

  it('answers for what lies before a bad entry', () => {
    const path = temp.at('image');
    const clusters = new Map<number, ClusterSpec>([
      [0, { kind: 'data', bytes: pattern(1, 65536) }],
      [1, { kind: 'entry', entry: 0x10201n }],
    ]);
    writeImage(path, { size: 1 << 20, clusters });
    withImage(path, ({ image: { disk } }) => {
      expect(disk.seek(0, false)).to.equal(0);
      expect(() => disk.seek(65536, false)).to.throw(/not a multiple/);
    });
  });

  it('reads a table that the file holds a part of as if zeroes followed', () => {
    const path = temp.at('image');
    const size = 3 * 8192 * 65536;
    const clusters = new Map<number, ClusterSpec>(
      Array.from({ length: 512 }, (_, n) => [n, { kind: 'data', bytes: pattern(n + 1, 512) }]),
    );
    const { bytes, places } = writeImage(path, { size, clusters });
    const partial = Buffer.alloc(16);
    bytes.copy(partial, 0, places.l2Tables.get(0)!);
    bytes.writeBigUInt64BE(BigInt(bytes.length), places.l1Table + 8);
    withImage(temp.write('cut', Buffer.concat([bytes, partial])), ({ image: { disk } }) => {
      expect(readDisk(disk, 511 * 65536, 512).equals(pattern(512, 512))).to.equal(true);
      const second = 8192 * 65536;
      expect(readDisk(disk, second + 65536, 512).equals(pattern(2, 512))).to.equal(true);
      const rest = readDisk(disk, second + 2 * 65536, 600 * 65536);
      expect(rest.every((byte) => byte === 0)).to.equal(true);
    });
  });
});
