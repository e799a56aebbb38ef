/**
 * Damaged images by the thousand: whatever they hold, opening and reading them ends soon, and
 * throws only what is expected. QCOW2FS_FUZZ_COUNT asks for more of them, QCOW2FS_SEED for the same.
 */
import { writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { describeError, isExpected } from '#src/errors.js';
import type { AttachedImage } from '#src/image/attach.js';
import type { Disk } from '#src/image/disk.js';
import { collectInfo } from '#src/image/info.js';
import type { OpenPolicy } from '#src/image/open.js';
import { buildImage } from '../helpers/image-builder.js';
import type { BuiltImage, ClusterSpec, ImageSpec } from '../helpers/image-spec.js';
import { pattern, printSeed, Random, SEED } from '../helpers/random.js';
import { readDisk, withImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

const COUNT = Number(process.env.QCOW2FS_FUZZ_COUNT ?? 2000);

/** What reading one image may take. */
const MAX_MS = 10_000;
const MAX_GROWTH = 512 << 20;

/** Bytes read at each end of a disk. */
const READ_SIZE = 1 << 20;

/** Numbers that break arithmetic. */
const NUMBERS = [0n, 1n, 511n, 512n, 0x7fn << 24n, 0xffff_ffffn, 1n << 32n, 1n << 53n, 1n << 62n];
const MORE_NUMBERS = [1n << 63n, (1n << 64n) - 1n, (1n << 64n) - 512n, (1n << 56n) - 512n];

function bases(): BuiltImage[] {
  const specs: Partial<ImageSpec>[] = [
    { version: 2, clusterBits: 9 },
    { clusterBits: 9, refcountOrder: 0 },
    { clusterBits: 12, compression: 'zstd' },
    { clusterBits: 14, extendedL2: true },
    { clusterBits: 12, dataFile: { name: 'data' } },
  ];
  return specs.map((spec) => {
    const clusterSize = 2 ** spec.clusterBits!;
    const own = spec.dataFile !== undefined;
    const plain: ClusterSpec = { kind: 'data', bytes: pattern(2, clusterSize) };
    const packed: ClusterSpec = own
      ? plain
      : { kind: 'compressed', bytes: pattern(3, clusterSize) };
    const clusters = new Map<number, ClusterSpec>([
      [0, { kind: 'data', bytes: pattern(1, clusterSize) }],
      [1, packed],
      [3, spec.version === 2 ? plain : { kind: 'zero' }],
      [40, { kind: 'data', bytes: pattern(4, clusterSize) }],
    ]);
    if (spec.extendedL2 === true) {
      const bytes = pattern(5, clusterSize);
      clusters.set(5, { kind: 'subclusters', bytes, allocated: 0xff, zero: 0xff00 });
    }
    return buildImage({
      size: 64 * clusterSize,
      clusters,
      snapshots: own
        ? []
        : [
            { id: '1', name: 'one', clusters: new Map([[2, packed]]) },
            { id: '2', name: 'two', vmStateSize: 3000, vmState: new Map([[0, plain]]) },
          ],
      ...(spec.version === 2 ? {} : { bitmaps: [{ name: 'bits', granularityBits: 9 }] }),
      backing: { name: 'base', format: 'raw' },
      featureNames: [{ type: 0, bit: 60, name: 'sixty' }],
      ...spec,
    });
  });
}

/** Where an image's structures lie: damage elsewhere changes data only. */
function targets({ places, bytes }: BuiltImage): number[] {
  const tables = [...places.l2Tables.values(), ...places.snapshotL1Tables];
  const places8 = [0, 72, places.l1Table, places.snapshotTable, places.bitmapDirectory, ...tables];
  return [...places8, ...places.snapshotEntries, ...places.clusters.values()].filter(
    (at) => at + 256 < bytes.length,
  );
}

/** Damages a copy in one to four places; tells what was done. */
function mutate(random: Random, base: BuiltImage): { bytes: Buffer; story: string[] } {
  let bytes = Buffer.from(base.bytes);
  const story: string[] = [];
  for (let n = 1 + random.below(4); n > 0; n--) {
    const at = random.pick(targets(base)) + random.below(128);
    const aligned = at - (at % 4);
    if (aligned + 8 > bytes.length) continue;
    switch (random.below(7)) {
      case 0:
        bytes[at] = random.below(256);
        break;
      case 1:
        bytes[at]! ^= 1 << random.below(8);
        break;
      case 2:
        bytes.writeUInt32BE(random.below(2 ** 32), aligned);
        break;
      case 3:
        bytes.writeBigUInt64BE(random.pick([...NUMBERS, ...MORE_NUMBERS]), aligned);
        break;
      case 4:
        // An offset of something else in the file, with flags or not.
        bytes.writeUInt32BE(random.pick([0, 0x8000_0000, 0x4000_0000]), aligned);
        bytes.writeUInt32BE(random.pick(targets(base)), aligned + 4);
        break;
      case 5:
        bytes.copy(bytes, aligned, random.below(bytes.length), bytes.length);
        break;
      case 6:
        bytes = bytes.subarray(0, random.below(bytes.length + 1));
        break;
    }
    story.push(`0x${at.toString(16)}`);
  }
  return { bytes, story };
}

/** Calls `body`; what it throws must be an error of the image or the system. */
function tolerate(body: () => void): void {
  try {
    body();
  } catch (error) {
    if (!isExpected(error)) throw error;
    expect(describeError(error)).to.be.a('string').that.is.not.equal('');
  }
}

function readSome(disk: Disk): void {
  const length = Math.min(disk.size, READ_SIZE);
  tolerate(() => readDisk(disk, 0, length));
  tolerate(() => readDisk(disk, disk.size - length, length));
  for (let at = 0; at < length; at += 65536) {
    tolerate(() => readDisk(disk, at, Math.min(512, length - at)));
  }
  tolerate(() => {
    const data = disk.seek(0, false);
    expect(data).to.be.within(0, disk.size);
    expect(disk.seek(data, true)).to.be.within(data, disk.size);
  });
  tolerate(() => disk.allocatedWithin(0, disk.size, 1000));
}

function readEverything(image: AttachedImage, path: string): void {
  readSome(image.disk);
  const top = image.description.layers[0];
  if (top.format === 'qcow2') {
    for (let index = 0; index < Math.min(top.snapshots.length, 20); index++) {
      tolerate(() => readSome(image.snapshotDisk(index + 1)));
      tolerate(() => readSome(image.vmState(index + 1)));
    }
  }
  tolerate(() => void collectInfo(top, path));
}

describe('openImage() of damaged images', () => {
  const temp = useTempFolder();
  printSeed();

  it(`throws what is expected, soon, in little memory: ${COUNT} images`, () => {
    const random = new Random(SEED);
    const images = bases();
    temp.write('base', pattern(7, 100_000));
    temp.write('data', images.at(-1)!.dataFile!);
    const path = temp.at('image');
    const before = process.memoryUsage().rss;
    let opened = 0;
    for (let n = 0; n < COUNT; n++) {
      const { bytes, story } = mutate(random, random.pick(images));
      writeFileSync(path, bytes);
      // What an image names stays in the folder, and a name may become that of anything.
      const policy: OpenPolicy = { backingRoot: temp.path };
      if (random.chance(0.8)) Object.assign(policy, { format: 'qcow2' });
      const start = performance.now();
      try {
        tolerate(() =>
          withImage(
            path,
            ({ image }) => {
              opened++;
              readEverything(image, path);
            },
            policy,
          ),
        );
        expect(performance.now() - start, 'milliseconds').to.be.below(MAX_MS);
        expect(process.memoryUsage().rss - before, 'bytes').to.be.below(MAX_GROWTH);
      } catch (error) {
        writeFileSync('/tmp/qcow2fs-fuzz-failure', bytes);
        const what = error instanceof Error ? error.stack : error;
        throw new Error(`image ${n}, damaged at ${story}: /tmp/qcow2fs-fuzz-failure: ${what}`);
      }
    }
    // Most damage must get past the header, or nothing is tested.
    if (COUNT >= 500) expect(opened).to.be.above(COUNT / 4);
  }).timeout(MAX_MS + 40 * COUNT);
});
