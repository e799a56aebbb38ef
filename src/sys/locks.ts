/**
 * Byte-range locks that belong to an open file description (fcntl(2), F_OFD_*): all threads that use
 * the descriptor hold them, and closing it, by exit or by death, lets them go.
 */
import { readdirSync, readFileSync, type Stats, statSync } from 'node:fs';
import { i32, struct, u16, u32, u64 } from '../codec/struct.js';
import { ERRNO } from '../errors.js';
import { IoBuffer } from './io-buffer.js';
import { fail, lastErrno, libc } from './libc.js';
import { processIds } from './process.js';

const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** struct flock of Linux, 64-bit. */
const FLOCK = struct('flock', 'little', {
  type: u16,
  whence: u16,
  padding: u32,
  start: u64,
  len: u64,
  pid: i32,
  padding2: u32,
});

/** Made by the first lock: an address needs the C library. */
let scratch: IoBuffer | undefined;

function call(fd: number, command: number, type: number, byte: number): number {
  scratch ??= new IoBuffer(FLOCK.size);
  FLOCK.write(scratch.view, 0, { type, start: byte, len: 1 });
  return libc.fcntl(fd, command, scratch.address);
}

/** Takes a shared lock on one byte; false where another holds it exclusively. */
export function lockByte(fd: number, byte: number): boolean {
  if (call(fd, F_OFD_SETLK, F_RDLCK, byte) >= 0) return true;
  const errno = lastErrno();
  if (errno === ERRNO.EAGAIN || errno === ERRNO.EACCES) return false;
  return fail('fcntl', `lock of byte ${byte}`);
}

export function unlockByte(fd: number, byte: number): void {
  if (call(fd, F_OFD_SETLK, F_UNLCK, byte) < 0) fail('fcntl', `unlock of byte ${byte}`);
}

/** Whether somebody else holds any lock on the byte. */
export function isLockedByOthers(fd: number, byte: number): boolean {
  if (call(fd, F_OFD_GETLK, F_WRLCK, byte) < 0) fail('fcntl', `test of byte ${byte}`);
  return FLOCK.get(scratch!.view, 0, 'type') !== F_UNLCK;
}

/** What stat(2) tells a file by. */
export type FileId = Pick<Stats, 'dev' | 'ino'>;

/**
 * The processes with a lock on `byte` of that file; `except`: a descriptor of this one that does not count.
 * /proc/locks names none for such locks, but each descriptor's fdinfo shows its own. Best effort:
 * only root sees everybody's.
 */
export function lockHolders(file: FileId, byte: number, except?: number): number[] {
  return processIds().filter((pid) =>
    entries(`/proc/${pid}/fdinfo`).some(
      (fd) => !(pid === process.pid && Number(fd) === except) && holds(pid, fd, file, byte),
    ),
  );
}

/** Neighbouring bytes are shown as one lock. */
function holds(pid: number, fd: string, file: FileId, byte: number): boolean {
  const locks = textOf(pid, fd).matchAll(/^lock:.*:(\d+) (\d+) (\d+|EOF)$/gm);
  for (const [, ino, start, end] of locks) {
    if (Number(ino) !== file.ino || Number(start) > byte) continue;
    if (end !== 'EOF' && Number(end) < byte) continue;
    return deviceOf(pid, fd) === file.dev;
  }
  return false;
}

/**
 * As stat tells it, not as the lock's line does, which names the superblock's: on btrfs and overlayfs
 * the two differ.
 */
function deviceOf(pid: number, fd: string): number | undefined {
  try {
    return statSync(`/proc/${pid}/fd/${fd}`).dev;
  } catch {
    return undefined;
  }
}

function entries(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function textOf(pid: number, fd: string): string {
  try {
    return readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8');
  } catch {
    return '';
  }
}
