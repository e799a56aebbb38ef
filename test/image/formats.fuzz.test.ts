/**
 * Damaged images of other formats: whatever their headers, tables, logs and descriptors hold, opening, mapping,
 * reading and checking them ends soon, and throws only what is expected, with the file's name. QCOW2FS_FUZZ_COUNT asks
 * for more of them, QCOW2FS_SEED for the same.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import { describeError, ImageError, isExpected } from '#src/errors.js';
import type { Disk } from '#src/image/disk.js';
import { Extent } from '#src/image/extent.js';
import { collectInfo } from '#src/image/info.js';
import { check } from '#src/tools/check.js';
import { FOREIGN_BASES, type ForeignBase, type Place } from '../helpers/foreign-bases.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { readDisk, withImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

/** Of each kind of image. */
const COUNT = Math.ceil(Number(process.env.QCOW2FS_FUZZ_COUNT ?? 600) / 20);
const MAX_MS = 10_000;
const MAX_GROWTH = 512 << 20;
const READ_SIZE = 1 << 18;
/** Extents that are looked at from a place on. */
const MOST_LOOKS = 200;

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
const WORDS = [
  '0',
  '-1',
  '1',
  '2147483648',
  '18014398509481983',
  '99999999999999999999',
  'ffffffff',
];
const NAMES = [
  '"image.vmdk"',
  '""',
  '"../x"',
  '"/dev/zero"',
  '"nbd:x"',
  '"\0"',
  `"${'n'.repeat(600)}"`,
];

function damage(random: Random, base: Buffer, places: readonly Place[]): Buffer {
  let bytes = Buffer.from(base);
  for (let n = 1 + random.below(3); n > 0; n--) {
    const [start, length] = random.pick([...places]);
    const at = start + random.below(length);
    if (at + 8 > bytes.length) continue;
    switch (random.below(6)) {
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
        bytes.writeUInt32LE(random.below(2 ** random.below(33)), at - (at % 4));
        break;
      case 5:
        if (random.chance(0.3)) bytes = bytes.subarray(0, random.below(bytes.length + 1));
        break;
    }
  }
  return bytes;
}

/** Numbers and names of a text are replaced, and lines repeated, dropped and exchanged. */
function damageText(random: Random, base: Buffer): Buffer {
  const lines = base.toString('latin1').split('\n');
  for (let n = 1 + random.below(3); n > 0; n--) {
    const [at, other] = [random.below(lines.length), random.below(lines.length)];
    const line = lines[at] ?? '';
    switch (random.below(7)) {
      case 0:
        lines[at] = line.replace(/\d+/, random.pick(WORDS));
        break;
      case 1:
        lines[at] = line.replace(/"[^"]*"/, random.pick(NAMES));
        break;
      case 2:
        lines.splice(at, 0, ...Array<string>(1 + random.below(4000)).fill(lines[other] ?? ''));
        break;
      case 3:
        lines.splice(at, 1);
        break;
      case 4:
        lines[at] = lines[other] ?? '';
        break;
      case 5:
        lines[at] = line.slice(0, random.below(line.length + 1));
        break;
      case 6:
        lines[at] = random.bytes(random.below(2000)).toString('latin1');
        break;
    }
  }
  return Buffer.from(lines.join('\n'), 'latin1');
}

function tolerate(folder: string, body: () => void): void {
  try {
    body();
  } catch (error) {
    if (!isExpected(error)) throw error;
    const text = describeError(error);
    const path = error instanceof ImageError ? error.context.path : undefined;
    expect(`${path} ${text}`).to.include(folder);
  }
}

function lookAt(disk: Disk, offset: number): void {
  const extent = new Extent();
  for (let n = 0; n < MOST_LOOKS && offset < disk.size; n++) {
    disk.mapping.map(offset, disk.size - offset, extent);
    expect(extent.length).to.be.within(1, disk.size - offset);
    offset += extent.length;
  }
}

function useImage(path: string, format: string, random: Random): void {
  const folder = dirname(path);
  const policy = { format, backingRoot: folder };
  tolerate(folder, () =>
    withImage(
      path,
      ({ image: { disk, description } }) => {
        const length = Math.min(disk.size, READ_SIZE);
        const places = [0, disk.size - length, random.below(disk.size - length + 1)];
        for (const place of places) {
          tolerate(folder, () => readDisk(disk, place, length));
          tolerate(folder, () => lookAt(disk, place));
          tolerate(folder, () => {
            const data = disk.seek(place, false);
            expect(disk.seek(data, true)).to.be.within(data, disk.size);
          });
        }
        tolerate(folder, () => void collectInfo(description.layers[0], path));
      },
      policy,
    ),
  );
  tolerate(folder, () => {
    try {
      check({ path, filename: path, format }, { policy: { backingRoot: folder } });
    } catch (error) {
      // What is not checked at all, and where a check ends, is told of without the file.
      if (!(error instanceof ImageError) || error.context.operation !== 'check') throw error;
    }
  });
}

describe('damaged images of other formats', () => {
  const temp = useTempFolder();
  printSeed();

  for (const [index, base] of FOREIGN_BASES.entries()) {
    it(`${base.name}: ${COUNT} images`, () => {
      const random = new Random(SEED + index);
      const folder = temp.at(`base-${index}`);
      mkdirSync(folder);
      const path = base.make(folder);
      fuzz(base, random, path);
      rmSync(folder, { recursive: true });
    }).timeout(2 * MAX_MS + 100 * COUNT);
  }

  function fuzz({ format, file, places, isText, sum }: ForeignBase, random: Random, path: string) {
    const damaged = file === undefined ? path : join(dirname(path), file);
    const base = readFileSync(damaged);
    const from = places(base);
    const before = process.memoryUsage().rss;
    for (let n = 0; n < COUNT; n++) {
      const asText = isText === true && random.chance(0.7);
      const bytes = asText ? damageText(random, base) : damage(random, base, from);
      if (sum !== undefined && random.chance(0.8)) sum(bytes, base);
      writeFileSync(damaged, bytes);
      const start = performance.now();
      try {
        useImage(path, format, random);
        expect(performance.now() - start, 'milliseconds').to.be.below(MAX_MS);
        expect(process.memoryUsage().rss - before, 'bytes').to.be.below(MAX_GROWTH);
      } catch (error) {
        writeFileSync('/tmp/qcow2fs-fuzz-failure', bytes);
        const what = error instanceof Error ? error.stack : error;
        throw new Error(`image ${n}: /tmp/qcow2fs-fuzz-failure: ${what}`);
      }
    }
  }
});
