/** Images that contradict themselves: reading them fails, ends, and shows nothing else. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { expect } from 'chai';
import { openImage } from '#src/image/open.js';
import { expectImageError } from '../helpers/errors.js';
import { buildImage } from '../helpers/image-builder.js';
import type { BuiltImage, ClusterSpec, ImageSpec } from '../helpers/image-spec.js';
import { pattern } from '../helpers/random.js';
import { readDisk, readImage, withImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

const CLUSTER_SIZE = 4096;
const COMPRESSED = 1n << 62n;
const SIZE = 4 << 20;

const DATA: ClusterSpec = { kind: 'data', bytes: pattern(1, CLUSTER_SIZE) };

function build(spec: Partial<ImageSpec> = {}): BuiltImage {
  return buildImage({ size: SIZE, clusterBits: 12, clusters: new Map([[0, DATA]]), ...spec });
}

/** An image whose L1 entry 0 is that. */
function withL1Entry(entry: bigint): Buffer {
  const { bytes, places } = build();
  bytes.writeBigUInt64BE(entry, places.l1Table);
  return bytes;
}

function withL2Entry(entry: bigint, spec: Partial<ImageSpec> = {}): Buffer {
  return build({ ...spec, clusters: new Map([[0, { kind: 'entry', entry }]]) }).bytes;
}

describe('malformed images', () => {
  const temp = useTempFolder();

  const unreadable: [what: string, image: () => Buffer, message: RegExp][] = [
    ['an unaligned L2 table', () => withL1Entry(0x1200n), /L2 table offset 0x1200 .*\(L1 offset/],
    ['an L2 table past the end', () => withL1Entry(1n << 40n), /table at .* past the end/],
    ['an L2 table past 2^53', () => withL1Entry(1n << 55n), /L2 table offset .* too large/],
    ['an unaligned cluster', () => withL2Entry(0x1200n), /0x1200 is not a multiple .*\(L2 off/],
    ['an unaligned zero cluster', () => withL2Entry(0x1201n), /0x1200 is not a multiple/],
    ['a cluster past the end', () => withL2Entry(1n << 40n), /data at .* past the end/],
    ['a cluster past 2^53', () => withL2Entry(1n << 55n), /past the end/],
    ['a zero cluster in version 2', () => withL2Entry(1n, { version: 2 }), /zero cluster in a ver/],
    ['compressed data past the end', () => withL2Entry(COMPRESSED | (1n << 40n)), /decompress/],
    ['compressed data past 2^53', () => withL2Entry(COMPRESSED | (1n << 57n)), /impossible/],
    ['compressed data that is none', () => withL2Entry(COMPRESSED), /cannot decompress/],
  ];
  for (const [what, image, message] of unreadable) {
    it(`reading ${what} gives EIO, and leaves the rest readable`, () => {
      const path = temp.write('image', image());
      withImage(path, ({ image: { disk } }) => {
        for (let round = 0; round < 2; round++) {
          expectImageError('EIO', message, () => readDisk(disk, 0, 512));
          expectImageError('EIO', message, () => readDisk(disk, 0, CLUSTER_SIZE * 2));
        }
        expect(readDisk(disk, SIZE - 512).every((byte) => byte === 0)).to.equal(true);
      });
    });
  }

  const subclusters: [what: string, entry: bigint, bitmap: bigint, message: RegExp][] = [
    ['both allocated and zero', 0x10000n, 0x1_0000_0001n, /both allocated and zero/],
    ['allocated without a cluster', 0n, 1n, /of an unallocated cluster/],
  ];
  for (const [what, entry, bitmap, message] of subclusters) {
    it(`reading subclusters ${what} gives EIO`, () => {
      const clusters = new Map<number, ClusterSpec>([[0, { kind: 'entry', entry, bitmap }]]);
      const { bytes } = buildImage({ size: SIZE, extendedL2: true, clusters });
      expectImageError('EIO', message, () => readImage(temp.write('image', bytes)));
    });
  }

  it('reads tables that point at each other, and at the header, without end or harm', () => {
    const { places } = build();
    for (const target of [places.l1Table, places.l2Tables.get(0)!, places.refcountTable]) {
      const bytes = withL1Entry(BigInt(target));
      const l2 = places.l2Tables.get(0)!;
      bytes.writeBigUInt64BE(BigInt(l2), l2 + 8);
      withImage(temp.write('image', bytes), ({ image: { disk } }) => {
        for (let at = 0; at < SIZE; at += CLUSTER_SIZE) {
          try {
            readDisk(disk, at, CLUSTER_SIZE);
          } catch (error) {
            expect(error).to.include({ code: 'EIO' });
          }
        }
      });
    }
  });

  it("never takes another layer's table for one of its own", () => {
    // The offset's bits above 2^53 would name the backing file's tables in the cache.
    const base = build();
    temp.write('base', base.bytes);
    const { bytes, places } = build({ backing: { name: 'base', format: 'qcow2' } });
    const l2 = base.places.l2Tables.get(0)!;
    withImage(temp.write('image', bytes), ({ image }) => readDisk(image.disk.backing!));
    for (let bit = 53n; bit < 56n; bit++) {
      bytes.writeBigUInt64BE((1n << bit) | BigInt(l2), places.l1Table);
      withImage(temp.write('image', bytes), ({ image: { disk } }) => {
        readDisk(disk.backing!);
        expectImageError('EIO', /too large|past the end/, () => readDisk(disk, 0, 512));
      });
    }
  });

  it('ignores reserved bits when it reads', () => {
    const { bytes, places } = build();
    const l2 = places.l2Tables.get(0)!;
    for (const at of [places.l1Table, l2]) {
      bytes.writeBigUInt64BE(bytes.readBigUInt64BE(at) | 0x3f00_0000_0000_01fen, at);
    }
    const found = readImage(temp.write('image', bytes));
    expect(found.subarray(0, CLUSTER_SIZE).equals(pattern(1, CLUSTER_SIZE))).to.equal(true);
  });

  it('reads the part of the last cluster that the file lacks as zeroes, and nothing else', () => {
    const clusters = new Map<number, ClusterSpec>([
      [0, DATA],
      [1, { kind: 'data', bytes: pattern(2, CLUSTER_SIZE) }],
    ]);
    const { bytes, places } = build({ clusters });
    const last = places.clusters.get(1)!;
    expect(last).to.equal(bytes.length - CLUSTER_SIZE);
    for (const kept of [1, 511, 512, 4095]) {
      const found = readImage(temp.write('image', bytes.subarray(0, last + kept)));
      const second = found.subarray(CLUSTER_SIZE, 2 * CLUSTER_SIZE);
      const expected = Buffer.alloc(CLUSTER_SIZE);
      pattern(2, CLUSTER_SIZE).copy(expected, 0, 0, kept);
      expect(second.equals(expected)).to.equal(true);
    }
    withImage(temp.write('image', bytes.subarray(0, last)), ({ image: { disk } }) => {
      expectImageError('EIO', /past the end/, () => readDisk(disk, CLUSTER_SIZE, 512));
      expectImageError('EIO', /past the end/, () => readDisk(disk, 0, SIZE));
      expect(readDisk(disk, 0, CLUSTER_SIZE).equals(pattern(1, CLUSTER_SIZE))).to.equal(true);
      // A hole there would make a copy of zeroes, without a word.
      expect(disk.seek(CLUSTER_SIZE, false)).to.equal(CLUSTER_SIZE);
      expect(disk.seek(0, true)).to.equal(2 * CLUSTER_SIZE);
    });
  });

  it('gives EIO for an L1 table past the end, wherever the file was cut', () => {
    const { bytes, places } = build();
    const path = temp.write('image', bytes.subarray(0, places.l1Table));
    withImage(path, ({ image: { disk } }) => {
      expectImageError('EIO', /table at .* past the end/, () => readDisk(disk, 0, 512));
    });
  });

  it('gives EIO for a data file that is shorter than what points into it', () => {
    const spec: Partial<ImageSpec> = {
      dataFile: { name: 'data' },
      clusters: new Map([[5, DATA]]),
    };
    const { bytes, dataFile } = build(spec);
    const path = temp.write('image', bytes);
    temp.write('data', dataFile!.subarray(0, 5 * CLUSTER_SIZE));
    expectImageError('EIO', /data: data at offset .* past the end/, () => readImage(path));
    temp.write('data', dataFile!.subarray(0, 5 * CLUSTER_SIZE + 100));
    const found = readImage(path).subarray(5 * CLUSTER_SIZE, 6 * CLUSTER_SIZE);
    expect(found.equals(pattern(1, CLUSTER_SIZE).fill(0, 100))).to.equal(true);
  });

  it('gives EIO where a data file is pointed into elsewhere than the guest sees it', () => {
    const clusters = new Map<number, ClusterSpec>([[1, { kind: 'entry', entry: 0x3000n }]]);
    const { bytes, dataFile } = build({ dataFile: { name: 'data' }, clusters });
    temp.write('data', dataFile!);
    const path = temp.write('image', bytes);
    expectImageError('EIO', /0x3000 does not match the guest's/, () => readImage(path));
  });

  it('shows the disk without snapshots where their table is cut off, and says so', () => {
    const { bytes } = build({ header: { nbSnapshots: 65536, snapshotsOffset: 1 << 30 } });
    withImage(temp.write('image', bytes), ({ image, warnings }) => {
      expect(warnings.join()).to.match(/not shown: snapshot table entry .* past the end/);
      expect(readDisk(image.disk, 0, 4096).equals(pattern(1, CLUSTER_SIZE))).to.equal(true);
    });
  });

  it('gives EIO for a snapshot whose L1 table is beyond the limits, and reads the others', () => {
    const snapshots = [
      { id: '1', name: 'bad', fields: { l1Size: (4 << 20) + 1 } },
      { id: '2', name: 'good', clusters: new Map([[0, DATA]]) },
    ];
    const path = temp.write('image', build({ snapshots }).bytes);
    withImage(path, ({ image, warnings }) => {
      expect(warnings.join()).to.match(/snapshot 'bad': Snapshot L1 table too large/);
      expectImageError('EIO', /too large/, () => image.snapshotDisk(1));
      expectImageError('EIO', /too large/, () => image.vmState(1));
      const good = readDisk(image.snapshotDisk(2), 0, CLUSTER_SIZE);
      expect(good.equals(pattern(1, CLUSTER_SIZE))).to.equal(true);
    });
  });

  it('reads a snapshot whose L1 table is larger than that of the disk, or too small', () => {
    const snapshots = [
      { id: '1', name: 'large', diskSize: 16 * SIZE, clusters: new Map([[16000, DATA]]) },
      { id: '2', name: 'small', diskSize: 16 * SIZE, fields: { l1Size: 1 } },
    ];
    const path = temp.write('image', build({ snapshots }).bytes);
    withImage(path, ({ image }) => {
      const found = readDisk(image.snapshotDisk(1), 16000 * CLUSTER_SIZE, CLUSTER_SIZE);
      expect(found.equals(pattern(1, CLUSTER_SIZE))).to.equal(true);
      expect(readDisk(image.snapshotDisk(2)).every((byte) => byte === 0)).to.equal(true);
    });
  });

  it('reads two snapshots that share a table by the length that each has', () => {
    const both = { diskSize: 16 * SIZE, clusters: new Map([[16000, DATA]]) };
    const { bytes, places } = build({
      snapshots: [
        { id: '1', name: 'short', diskSize: 16 * SIZE, fields: { l1Size: 1 } },
        { id: '2', name: 'long', ...both },
      ],
    });
    bytes.writeBigUInt64BE(BigInt(places.snapshotL1Tables[1]!), places.snapshotEntries[0]!);
    withImage(temp.write('image', bytes), ({ image }) => {
      expect(readDisk(image.snapshotDisk(1)).every((byte) => byte === 0)).to.equal(true);
      const found = readDisk(image.snapshotDisk(2), 16000 * CLUSTER_SIZE, CLUSTER_SIZE);
      expect(found.equals(pattern(1, CLUSTER_SIZE))).to.equal(true);
    });
  });

  it('ends a search for data in an image that maps petabytes of zeroes', () => {
    const l1Entries = (32 << 20) / 8;
    const size = l1Entries * 8192 * 65536;
    const zero: ClusterSpec = { kind: 'zero' };
    const table = Array.from({ length: 8192 }, (_, n): [number, ClusterSpec] => [n, zero]);
    const { bytes, places } = buildImage({ size, clusters: new Map(table) });
    const entry = bytes.readBigUInt64BE(places.l1Table);
    for (let n = 1; n < l1Entries; n++) bytes.writeBigUInt64BE(entry, places.l1Table + 8 * n);
    withImage(temp.write('image', bytes), ({ image: { disk } }) => {
      const found = disk.seek(0, false);
      // Too far to look: from there on the disk counts as data, which is always allowed.
      expect(found).to.be.greaterThan(2 ** 40);
      expect(disk.seek(found, true)).to.equal(found);
      expect(readDisk(disk, found, 4096).every((byte) => byte === 0)).to.equal(true);
    });
  });

  it('does not take an image of version 1 for qcow2', () => {
    const { bytes } = build({ header: { version: 1 } });
    const path = temp.write('image', bytes);
    expectImageError('EINVAL', /Cluster size must be between/, () => openImage(path));
    expectImageError('ENOTSUP', /version 1/, () => openImage(path, { format: 'qcow2' }));
  });

  it('takes a file of holes that is larger than any disk for what it is', () => {
    const fd = openSync(temp.at('sparse'), 'w');
    writeSync(fd, build().bytes);
    ftruncateSync(fd, 2 ** 43);
    closeSync(fd);
    expect(readImage(temp.at('sparse')).length).to.equal(SIZE);
  });
});
