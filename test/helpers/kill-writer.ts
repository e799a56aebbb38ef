/**
 * Writes to the disk of a mount until that fails: `node kill-writer.js FILE SNAPSHOTS SECTORS SEED
 * DIRECT`. SNAPSHOTS: the folder of the disk's snapshots; empty where it can have none. Says on stdout what it does, each before it
 * is begun: `write FIRST COUNT GENERATION`, `snapshot NAME`, `delete NAME`; and `certain` after each
 * fsync.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, constants, fsyncSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from './random.js';
import { markSectors, SECTOR_SIZE, ZEROES } from './sector-marks.js';

const words = process.argv.slice(2) as [string, string, string, string, string];
const [file, folder, sectors, seed, direct] = words;
const size = Number(sectors);
const random = new Random(Number(seed));
const flags = constants.O_RDWR | (direct === 'direct' ? constants.O_DIRECT : 0);
const fd = openSync(file, flags);
const snapshots: string[] = [];

/** At once: what is said has been done or begun, whatever comes next. */
function say(line: string): void {
  writeSync(1, `${line}\n`);
}

function makeCertain(): void {
  fsyncSync(fd);
  say('certain');
}

function write(first: number, count: number, generation: number): void {
  say(`write ${first} ${count} ${generation}`);
  const bytes = markSectors(first, count, generation);
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(fd, bytes, done, bytes.length - done, first * SECTOR_SIZE + done);
  }
}

function discard(first: number, count: number): void {
  say(`write ${first} ${count} ${ZEROES}`);
  const range = ['-o', String(first * SECTOR_SIZE), '-l', String(count * SECTOR_SIZE)];
  const { status, stderr } = spawnSync('fallocate', ['-p', ...range, file], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
}

function takeSnapshot(name: string): void {
  // So that there is no doubt what it holds.
  makeCertain();
  say(`snapshot ${name}`);
  closeSync(openSync(join(folder, `${name}.raw`), 'a'));
  snapshots.push(name);
}

function deleteSnapshot(): void {
  const [name] = snapshots.splice(random.below(snapshots.length), 1);
  say(`delete ${name}`);
  unlinkSync(join(folder, `${name}.raw`));
}

function step(generation: number): void {
  const count = 1 + random.below(Math.min(random.chance(0.1) ? 2048 : 64, size));
  const first = random.below(size - count + 1);
  const what = random.below(50);
  if (what === 0) discard(first, count);
  else if (what === 1 && folder !== '' && snapshots.length < 5) takeSnapshot(`s${generation}`);
  else if (what === 2 && snapshots.length > 0) deleteSnapshot();
  else write(first, count, generation);
  if (random.chance(0.2)) makeCertain();
}

try {
  for (let generation = 2; ; generation++) step(generation);
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
}
