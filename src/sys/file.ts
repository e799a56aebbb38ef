/** Files by descriptor: positioned reads, sizes, holes. Descriptors are valid in every thread. */
import { fstatSync } from 'node:fs';
import { ERRNO } from '../errors.js';
import type { IoBuffer } from './io-buffer.js';
import { fail, interrupted, lastErrno, libc } from './libc.js';

const SEEK_END = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/**
 * Reads `length` bytes at `position` into `target` from byte `at` on. Answers how many bytes there
 * were: fewer than `length` only where the file ends.
 */
export function pread(
  fd: number,
  target: IoBuffer,
  at: number,
  length: number,
  position: number,
): number {
  if (at < 0 || length < 0 || at + length > target.length) throw new RangeError('pread: no room');
  let done = 0;
  while (done < length) {
    const n = libc.pread(fd, target.address + at + done, length - done, position + done);
    if (n === 0) break;
    if (n > 0) done += n;
    else if (!interrupted()) fail('pread', `${length} bytes at ${position}`);
  }
  return done;
}

/** Size in bytes of a regular file, or of a block device. */
export function sizeOf(fd: number): number {
  const stat = fstatSync(fd);
  if (stat.isFile()) return stat.size;
  const end = libc.lseek(fd, 0, SEEK_END);
  if (end < 0) fail('lseek');
  return end;
}

/**
 * The first byte of data (`hole` false) or of a hole (`hole` true) at or after `position`; `end`
 * where there is none before it. Files that know no holes are data throughout.
 */
export function seekExtent(fd: number, position: number, hole: boolean, end: number): number {
  const found = libc.lseek(fd, position, hole ? SEEK_HOLE : SEEK_DATA);
  if (found >= 0) return Math.min(found, end);
  // ENXIO: nothing but a hole up to the end. EINVAL: the file system cannot tell.
  if (lastErrno() === ERRNO.ENXIO) return hole ? Math.min(position, end) : end;
  if (lastErrno() === ERRNO.EINVAL) return hole ? end : position;
  return fail('lseek', `at ${position}`);
}
