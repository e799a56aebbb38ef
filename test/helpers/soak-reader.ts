/**
 * Reads at random from files of a mount and compares with raw files, for a while:
 * `node soak-reader.js SEED SECONDS FILE TRUTH START [FILE TRUTH START …]`. Every second read is
 * direct. Prints how many reads it made; ends with 1 at the first byte that differs.
 */
import { constants, fstatSync, openSync, readSync } from 'node:fs';

const [seed, seconds, ...names] = process.argv.slice(2);
let state = Number(seed) * 2654435761 + 1;

function random(below: number): number {
  // The minimal standard generator: good enough, and the same everywhere.
  state = (state * 48_271) % 2_147_483_647;
  return state % below;
}

const files = [];
for (let at = 0; at < names.length; at += 3) {
  const [file, truth, start] = names.slice(at, at + 3) as [string, string, string];
  const buffered = openSync(file, 'r');
  files.push({
    file,
    fds: [buffered, openSync(file, constants.O_RDONLY | constants.O_DIRECT)],
    truth: openSync(truth, 'r'),
    start: Number(start),
    size: fstatSync(buffered).size,
  });
}

const LARGEST = 3 * 2 ** 19;
const seen = Buffer.alloc(LARGEST);
const wanted = Buffer.alloc(LARGEST);
const end = performance.now() + Number(seconds) * 1000;
let reads = 0;
for (; performance.now() < end; reads++) {
  const { file, fds, truth, start, size } = files[random(files.length)]!;
  // Small ones mostly, as guests' file systems read.
  const length = 1 + random(reads % 8 === 0 ? LARGEST : 20_000);
  const offset = random(size);
  const present = Math.min(length, size - offset);
  const n = readSync(fds[reads % 2]!, seen, 0, length, offset);
  readSync(truth, wanted, 0, present, start + offset);
  const same = n === present && seen.compare(wanted, 0, n, 0, n) === 0;
  if (same) continue;
  process.stderr.write(`${file}: ${length} bytes at ${offset}: ${n} read, or they differ\n`);
  process.exit(1);
}
process.stdout.write(`${reads}\n`);
