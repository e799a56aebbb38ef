/**
 * QEMU's image locks (block/file-posix.c): shared locks on single bytes of the file. Byte 100 + i says
 * `I use permission i`, byte 200 + i says `I do not let others use permission i`. An opener takes its
 * own bytes first and then looks for those that contradict them, so that of two that come at once
 * at least one sees the other.
 */
import { fstatSync } from 'node:fs';
import { ImageError } from '../errors.js';
import { isLockedByOthers, lockByte, lockHolders, unlockByte } from '../sys/locks.js';
import { processName } from '../sys/process.js';

const USES = 100;
const REFUSES = 200;

/** Permissions by their number. */
const CONSISTENT_READ = 0;
const WRITE = 1;
const RESIZE = 3;
const NAMES = ['consistent read', 'write', 'write unchanged', 'resize'] as const;

interface LockSet {
  readonly uses: readonly number[];
  readonly refuses: readonly number[];
}

/** What each kind of opener uses, and what it does not let others use. */
const LOCKS = {
  /** Reads the data: a mounted image, and each of its backing files. */
  read: { uses: [CONSISTENT_READ], refuses: [WRITE, RESIZE] },
  /** Looks at the header alone, as `info` does. */
  info: { uses: [], refuses: [WRITE, RESIZE] },
  /** Writes the data: lets others look at the header, and nothing else. */
  write: { uses: [CONSISTENT_READ, WRITE, RESIZE], refuses: [WRITE, RESIZE] },
} as const satisfies Record<string, LockSet>;

export type LockKind = keyof typeof LOCKS;

/**
 * Locks the open file until its descriptor is closed. Throws EAGAIN, with the process where it can be
 * found, if another uses the image in a way that does not go with this one. `advice`: what the user
 * could do then, said behind the process. `instead`: a descriptor of the same file that lets go of its own
 * locks, but not before others find these.
 */
export function lockImage(
  fd: number,
  path: string,
  kind: LockKind,
  { advice, instead }: { readonly advice?: string; readonly instead?: number | undefined } = {},
): void {
  const { uses, refuses }: LockSet = LOCKS[kind];
  const own = [...uses.map((i) => USES + i), ...refuses.map((i) => REFUSES + i)];
  const taken: number[] = [];
  try {
    for (const byte of own) {
      if (!lockByte(fd, byte)) throw conflict(fd, path, byte, advice);
      taken.push(byte);
    }
    if (instead !== undefined) unlockImage(instead);
    for (const i of uses)
      if (isLockedByOthers(fd, REFUSES + i)) throw conflict(fd, path, REFUSES + i, advice);
    for (const i of refuses)
      if (isLockedByOthers(fd, USES + i)) throw conflict(fd, path, USES + i, advice);
  } catch (error) {
    for (const byte of taken) unlockByte(fd, byte);
    throw error;
  }
}

/** Lets go of what `lockImage` took: the descriptor reads on. */
function unlockImage(fd: number): void {
  for (const first of [USES, REFUSES]) {
    for (let i = 0; i < NAMES.length; i++) unlockByte(fd, first + i);
  }
}

function conflict(fd: number, path: string, byte: number, advice?: string): ImageError {
  const shared = byte < REFUSES ? 'shared ' : '';
  const name = NAMES[(byte % 100) as 0];
  const holders = lockHolders(fstatSync(fd), byte, fd);
  const others = holders.filter((pid) => pid !== process.pid);
  const named = others.map((pid) => `${processName(pid)} (process ${pid})`);
  const isOwn = others.length < holders.length;
  if (isOwn) named.push('this process itself');
  const by = named.length === 0 ? 'another process' : named.join(', ');
  const limit = `in use by ${by}${advice === undefined || isOwn ? '' : `; ${advice}`}`;
  return inUse(path, `${shared}"${name}"`, limit);
}

/** What QEMU says of a lock that it does not get. `limit`: why. */
export function inUse(path: string, lock: string, limit: string): ImageError {
  return new ImageError('policy', 'EAGAIN', `Failed to get ${lock} lock`, {
    path,
    hint: `Is another process using the image [${path}]?`,
    limit,
  });
}
