/**
 * A raw disk that is like one in use: pieces of 4 KiB to 16 MiB, small ones as often as large ones, each of
 * one kind. By bytes, about 60 % is text that deflate takes to a third, 15 % is random, as packed
 * files are, 10 % is zeroes that were written, and 15 % was never written: holes of the file.
 */
import { randomFillSync } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { seededNumbers } from './seeded.js';

const BLOCK_SIZE = 4096;
/** Of a piece at most: 2 to this power, in blocks. */
const LARGEST_POWER = 12;
const LARGEST = BLOCK_SIZE << LARGEST_POWER;
/** Pieces are cut out of so much text. */
const TEXT_SIZE = 4 * LARGEST;
const SEED = 4;

/** Kinds with their parts of 100; what is left is a hole. */
const TEXT = 60;
const RANDOM = TEXT + 15;
const ZERO = RANDOM + 10;

/** Pieces are the same ones each time. `fillText`: fills a buffer with text. */
export function writeMixedDisk(
  path: string,
  size: number,
  fillText: (buffer: Buffer) => void,
): void {
  const text = Buffer.alloc(TEXT_SIZE);
  fillText(text);
  const random = randomFillSync(Buffer.alloc(LARGEST));
  const zeroes = Buffer.alloc(LARGEST);
  const next = seededNumbers(SEED);
  const fd = openSync(path, 'wx');
  try {
    ftruncateSync(fd, size);
    for (let offset = 0; offset < size; ) {
      const length = Math.min(size - offset, pieceLength(next));
      const kind = next() % 100;
      const bytes = kind < TEXT ? text : kind < RANDOM ? random : zeroes;
      // Pieces of the same bytes do not begin alike.
      const start = next() % (bytes.length - length + 1);
      if (kind < ZERO) writeSync(fd, bytes, start, length, offset);
      offset += length;
    }
  } finally {
    closeSync(fd);
  }
}

/** Bytes, whole blocks. */
function pieceLength(next: () => number): number {
  const power = (next() / 2 ** 32) * LARGEST_POWER;
  return Math.ceil(2 ** power) * BLOCK_SIZE;
}
