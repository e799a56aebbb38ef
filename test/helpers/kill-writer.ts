/**
 * Writes to a file of a mount until that fails: `node kill-writer.js FILE SECTORS SEED DIRECT`. Says
 * on stdout what it does: `write FIRST COUNT GENERATION` before each write, `certain` after each fsync.
 */
import { constants, fsyncSync, openSync, writeSync } from 'node:fs';
import { Random } from './random.js';
import { markSectors, SECTOR_SIZE } from './sector-marks.js';

const [file, sectors, seed, direct] = process.argv.slice(2) as [string, string, string, string];
const size = Number(sectors);
const random = new Random(Number(seed));
const flags = constants.O_RDWR | (direct === 'direct' ? constants.O_DIRECT : 0);
const fd = openSync(file, flags);

/** At once: what is said has been done or begun, whatever comes next. */
function say(line: string): void {
  writeSync(1, `${line}\n`);
}

for (let generation = 2; ; generation++) {
  const count = 1 + random.below(Math.min(random.chance(0.1) ? 2048 : 64, size));
  const first = random.below(size - count + 1);
  say(`write ${first} ${count} ${generation}`);
  const bytes = markSectors(first, count, generation);
  try {
    for (let done = 0; done < bytes.length; ) {
      done += writeSync(fd, bytes, done, bytes.length - done, first * SECTOR_SIZE + done);
    }
    if (!random.chance(0.2)) continue;
    fsyncSync(fd);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    break;
  }
  say('certain');
}
