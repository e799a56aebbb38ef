/**
 * Damaged images of other formats: whatever their headers and tables hold, opening, reading and checking
 * them ends soon, and throws only what is expected. QCOW2FS_FUZZ_COUNT asks for more of them,
 * QCOW2FS_SEED for the same.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { describeError, isExpected } from '#src/errors.js';
import { collectInfo } from '#src/image/info.js';
import { check } from '#src/tools/check.js';
import { qemuImg, tryQemuIo } from '../helpers/qemu.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { readDisk, withImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

/** Of each format. */
const COUNT = Math.ceil(Number(process.env.QCOW2FS_FUZZ_COUNT ?? 600) / 10);
const MAX_MS = 10_000;
const MAX_GROWTH = 512 << 20;
const READ_SIZE = 1 << 18;

/** A format, how its image is made, and where its structures lie: places, and how far each goes. */
const FORMATS: readonly [format: string, options: string, places: readonly [number, number][]][] = [
  [
    'qed',
    'cluster_size=4k,table_size=1',
    [
      [0, 64],
      [4096, 64],
      [8192, 256],
    ],
  ],
  [
    'qcow',
    '',
    [
      [0, 64],
      [48, 64],
      [4096, 256],
    ],
  ],
  [
    'vdi',
    '',
    [
      [64, 64],
      [340, 80],
      [512, 16],
    ],
  ],
  [
    'vpc',
    '',
    [
      [0, 90],
      [512, 64],
      [1536, 16],
    ],
  ],
  [
    'vmdk',
    '',
    [
      [0, 80],
      [512, 400],
      [10752, 64],
      [13312, 16],
      [13824, 256],
    ],
  ],
  ['vmdk', 'subformat=twoGbMaxExtentSparse', [[0, 440]]],
  ['vmdk', 'subformat=monolithicFlat', [[0, 360]]],
  ['vpc', 'subformat=fixed,force_size=on', [[4 << 20, 90]]],
  [
    'vhdx',
    'block_size=1M,log_size=1M',
    [
      [196608, 96],
      [2 << 20, 256],
      [(2 << 20) + 65536, 64],
      [3 << 20, 64],
    ],
  ],
];

const NUMBERS = [
  0n,
  1n,
  511n,
  0x8000_0000n,
  0xffff_ffffn,
  1n << 53n,
  1n << 62n,
  (1n << 64n) - 512n,
];

function damage(random: Random, base: Buffer, places: readonly [number, number][]): Buffer {
  let bytes = Buffer.from(base);
  for (let n = 1 + random.below(3); n > 0; n--) {
    const [start, length] = random.pick([...places]);
    const at = start + random.below(length);
    if (at + 8 > bytes.length) continue;
    switch (random.below(5)) {
      case 0:
        bytes[at] = random.below(256);
        break;
      case 1:
        bytes[at]! ^= 1 << random.below(8);
        break;
      case 2:
        bytes.writeBigUInt64LE(random.pick(NUMBERS), at - (at % 4));
        break;
      case 3:
        bytes.writeBigUInt64BE(random.pick(NUMBERS), at - (at % 4));
        break;
      case 4:
        bytes = bytes.subarray(0, random.below(bytes.length + 1));
        break;
    }
  }
  return bytes;
}

function tolerate(body: () => void): void {
  try {
    body();
  } catch (error) {
    if (!isExpected(error)) throw error;
    expect(describeError(error)).to.not.equal('');
  }
}

function useImage(path: string, format: string, root: string): void {
  const policy = { format, backingRoot: root };
  tolerate(() =>
    withImage(
      path,
      ({ image: { disk, description } }) => {
        const length = Math.min(disk.size, READ_SIZE);
        tolerate(() => readDisk(disk, 0, length));
        tolerate(() => readDisk(disk, disk.size - length, length));
        tolerate(() => {
          const data = disk.seek(0, false);
          expect(disk.seek(data, true)).to.be.within(data, disk.size);
        });
        tolerate(() => void collectInfo(description.layers[0], path));
      },
      policy,
    ),
  );
  tolerate(() => void check({ path, filename: path, format }, { policy: { backingRoot: root } }));
}

describe('damaged images of other formats', () => {
  const temp = useTempFolder();
  printSeed();

  for (const [format, options, places] of FORMATS) {
    it(`${format} ${options}: ${COUNT} images`, () => {
      const random = new Random(SEED);
      const path = temp.at(`image.${format}`);
      const how = options === '' ? [] : ['-o', options];
      qemuImg('create', '-q', '-f', format, ...how, path, '4M');
      const writes = ['write -P 1 0 9k', 'write -z 64k 8k', 'write -P 2 2M 5k', 'write 3M 4k'];
      tryQemuIo('-f', format, ...writes.flatMap((write) => ['-c', write]), path);
      const base = readFileSync(path);
      const before = process.memoryUsage().rss;
      for (let n = 0; n < COUNT; n++) {
        const bytes = damage(random, base, places);
        writeFileSync(path, bytes);
        const start = performance.now();
        try {
          useImage(path, format, temp.path);
          expect(performance.now() - start, 'milliseconds').to.be.below(MAX_MS);
          expect(process.memoryUsage().rss - before, 'bytes').to.be.below(MAX_GROWTH);
        } catch (error) {
          writeFileSync('/tmp/qcow2fs-fuzz-failure', bytes);
          const what = error instanceof Error ? error.stack : error;
          throw new Error(`image ${n}: /tmp/qcow2fs-fuzz-failure: ${what}`);
        }
      }
    }).timeout(MAX_MS + 100 * COUNT);
  }
});
