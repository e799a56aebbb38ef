/** Files by descriptor: positioned reads and writes, flushes, sizes, holes. Descriptors are valid in every thread. */
import { fstatSync, statfsSync } from 'node:fs';
import { ERRNO, SysError } from '../errors.js';
import { IoBuffer } from './io-buffer.js';
import { fail, interrupted, lastErrno, libc } from './libc.js';

/** Linux' own, of open(2); Node does not name it. With O_DIRECTORY in it. */
export const O_TMPFILE = 0o20200000;

const F_DUPFD_CLOEXEC = 1030;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
/** statfs(2)'s type of every FUSE file system. */
const FUSE_SUPER_MAGIC = 0x65735546;
const BLKROGET = 0x125e;
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

/**
 * The same of a file with O_DIRECT: `at`, `length` and `position` are whole blocks. Where the file ends
 * within one, there is no asking for the rest.
 */
export function preadDirect(
  fd: number,
  target: IoBuffer,
  at: number,
  length: number,
  position: number,
): number {
  if (at < 0 || length < 0 || at + length > target.length) throw new RangeError('pread: no room');
  for (;;) {
    const n = libc.pread(fd, target.address + at, length, position);
    if (n >= 0) return n;
    if (!interrupted()) fail('pread', `${length} bytes at ${position}`);
  }
}

/** Writes `length` bytes of `source` from byte `at` on to `position`: all of them, or it throws. */
export function pwrite(
  fd: number,
  source: IoBuffer,
  at: number,
  length: number,
  position: number,
): void {
  if (at < 0 || length < 0 || at + length > source.length) throw new RangeError('pwrite: no bytes');
  let done = 0;
  while (done < length) {
    const n = libc.pwrite(fd, source.address + at + done, length - done, position + done);
    if (n > 0) done += n;
    // A device that takes no more answers with 0.
    else if (n === 0) throw new SysError('pwrite', ERRNO.ENOSPC, `${length} bytes at ${position}`);
    else if (!interrupted()) fail('pwrite', `${length} bytes at ${position}`);
  }
}

/** Returns when the file's data is on the disk, and its size. Throws a SysError. */
export function fdatasync(fd: number): void {
  while (libc.fdatasync(fd) < 0) if (!interrupted()) fail('fdatasync');
}

export function truncate(fd: number, size: number): void {
  while (libc.ftruncate(fd, size) < 0) if (!interrupted()) fail('ftruncate', `to ${size}`);
}

/** Makes a hole that reads as zeroes. False where the file system cannot; nothing is changed then. */
export function punchHole(fd: number, position: number, length: number): boolean {
  const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  return fallocate(fd, mode, position, length);
}

/** Reserves space without changing what is read. False where the file system cannot. */
export function reserve(fd: number, position: number, length: number): boolean {
  return fallocate(fd, 0, position, length);
}

/** The same; the file's end stays where it is. */
export function reserveBehind(fd: number, position: number, length: number): boolean {
  return fallocate(fd, FALLOC_FL_KEEP_SIZE, position, length);
}

function fallocate(fd: number, mode: number, position: number, length: number): boolean {
  while (libc.fallocate(fd, mode, position, length) < 0) {
    const errno = lastErrno();
    if (errno === ERRNO.EINTR) continue;
    if (errno === ERRNO.EOPNOTSUPP || errno === ERRNO.ENOSYS || errno === ERRNO.EINVAL)
      return false;
    // Block devices that are not open for it, or do not know it.
    if (errno === ERRNO.ENODEV || errno === ERRNO.EPERM) return false;
    fail('fallocate', `${length} bytes at ${position}`);
  }
  return true;
}

/** Another descriptor of the same open file: what is locked by one is locked by both, until both are closed. */
export function duplicate(fd: number): number {
  const result = libc.fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (result < 0) fail('fcntl', 'F_DUPFD_CLOEXEC');
  return result;
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

/** Whether it is a block device that refuses all writes, though it could be opened for them. */
export function isReadOnlyDevice(fd: number): boolean {
  const answer = new IoBuffer(4);
  // Where it does not tell, each write does.
  return libc.ioctl(fd, BLKROGET, answer.address) >= 0 && answer.view.getUint32(0, true) !== 0;
}

/** Whether a process serves the file, maybe this one. */
export function isOnFuse(path: string): boolean {
  return statfsSync(path).type === FUSE_SUPER_MAGIC;
}
