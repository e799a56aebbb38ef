/** Which reads make the faulty worker fail, and how. */

const SECTOR = 512;
const MIB = 2 ** 20;

/** In sectors behind an odd MiB. */
export const FAULT = {
  /** Throws a TypeError. */
  bug: 1,
  /** Ends the thread with status 1. */
  exit: 2,
  /** Ends the thread with status 0. */
  goodExit: 3,
  /** An error that gets past every handler. */
  uncaught: 4,
  /** Ends the thread while it loads a slice into the cache, with the lock held. */
  inLoad: 5,
} as const;

/** A read at this sector behind the first MiB waits, and is served when that file is there. */
export const WAIT_SECTOR = 6;
export const RELEASE_VARIABLE = 'QCOW2FS_TEST_RELEASE';

export type Fault = keyof typeof FAULT;

export const FAULTS = Object.keys(FAULT) as readonly Fault[];

export function faultAt(offset: number, length: number): Fault | undefined {
  if (length !== SECTOR || Math.floor(offset / MIB) % 2 !== 1) return undefined;
  return FAULTS.find((fault) => FAULT[fault] * SECTOR === offset % MIB);
}

export function waitsAt(offset: number, length: number): boolean {
  return length === SECTOR && offset === MIB + WAIT_SECTOR * SECTOR;
}

/** Where to read a sector of the `pair`th two MiB for that fault: in sectors. */
export function sectorOf(fault: Fault, pair: number): number {
  return ((pair * 2 + 1) * MIB) / SECTOR + FAULT[fault];
}
