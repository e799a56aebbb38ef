/** Changing the size of a disk, by QEMU's rules. */
import { ERRNO, errnoName, errnoOf, type ErrnoName, ImageError, isExpected } from '../errors.js';
import { SECTOR_SIZE } from '../image/extent.js';
import { l1EntriesFor } from '../image/qcow2/geometry.js';
import type { Qcow2Description } from '../image/description.js';
import { LIMIT } from '../image/qcow2/layout.js';
import { runSteps, type Steps } from '../image/steps.js';
import type { Preallocation } from '../image/writer.js';
import { strerror } from '../sys/libc.js';
import type { OpenDisk } from './open-disk.js';

export interface NewSize {
  /** Bytes. */
  readonly bytes: bigint;
  /** Added to the size that the disk has, or taken from it; 0: they are the size. */
  readonly sign: -1 | 0 | 1;
}

/** The size that is meant. Throws where it is none. */
export function newSize(current: number, { bytes, sign }: NewSize): bigint {
  const size = sign === 0 ? bytes : BigInt(current) + BigInt(sign) * bytes;
  if (size > 0n && size < 2n ** 63n) return size;
  throw invalid('New image size must be positive');
}

/**
 * Makes the disk so large, and durable. Growing: zeroes. What is cut off is lost. Throws with QEMU's words
 * and nothing changed that is seen.
 */
export function resizeDisk(disk: OpenDisk, size: number): void {
  runSteps(resizeSteps(disk, size, 'off'));
}

/** The same in steps, with space for what is new as `preallocation` says; an error that is thrown in leaves the disk as large as it was. */
export function* resizeSteps(
  disk: OpenDisk,
  wanted: number | bigint,
  preallocation: Preallocation,
): Steps<void> {
  if (preallocation !== 'off' && wanted <= disk.size) {
    throw invalid('Preallocation can only be used for growing images');
  }
  const [top] = disk.description.layers;
  checkOffset(BigInt(wanted));
  if (top.format === 'qcow2') checkQcow2Size(top, BigInt(wanted));
  else if (preallocation === 'metadata') {
    throw new ImageError('unsupported', 'ENOTSUP', 'Unsupported preallocation mode: metadata');
  }
  const size = Number(wanted);
  if (size > Number.MAX_SAFE_INTEGER) throw inexact();
  try {
    // Of a raw file that ends within a sector, the size is kept by name alone.
    if (size !== disk.size || top.format === 'raw') {
      yield* disk.writer.resizeSteps(size, preallocation);
    }
    disk.writer.flushAll();
  } catch (error) {
    if (!isExpected(error) || error instanceof ImageError) throw error;
    throw failed(errnoOf(error), PROBLEMS[preallocation], top.format);
  }
}

/** Throws where a qcow2 disk cannot have that size. `version`: that it will have by then. */
export function checkQcow2Size(
  { header, snapshots }: Qcow2Description,
  size: bigint,
  version = header.version,
): void {
  checkOffset(size);
  if (size % BigInt(SECTOR_SIZE) !== 0n)
    throw invalid(`The new size must be a multiple of ${SECTOR_SIZE}`);
  if (version < 3 && snapshots.length > 0) {
    const message = "Can't resize a v2 image which has snapshots";
    throw new ImageError('unsupported', 'ENOTSUP', message);
  }
  if (l1EntriesFor(header.geometry, Number(size)) * 8 > LIMIT.MAX_L1_SIZE) {
    throw new ImageError('invalid', 'EFBIG', 'Failed to grow the L1 table: File too large', {
      limit: `at most ${BigInt((LIMIT.MAX_L1_SIZE / 8) * header.geometry.l2Coverage)} bytes`,
    });
  }
  if (size > Number.MAX_SAFE_INTEGER) throw inexact();
}

/** QEMU's, of all offsets: 2^63 less 1 GiB. */
const MAX_OFFSET = 2n ** 63n - 2n ** 30n;

function checkOffset(size: bigint): void {
  if (size > MAX_OFFSET) throw invalid(`offset(${size}) exceeds maximum(${MAX_OFFSET})`);
}

/** Behind that no offset is exact; files hardly become as large. */
function inexact(): ImageError {
  const message = `Could not resize file: ${strerror(ERRNO.EFBIG)}`;
  return new ImageError('invalid', 'EFBIG', message, {
    limit: `at most ${Number.MAX_SAFE_INTEGER} bytes`,
  });
}

const PROBLEMS: Readonly<Record<Preallocation, string>> = {
  off: 'Could not resize file',
  metadata: 'Could not resize file',
  falloc: 'Could not preallocate new data',
  full: 'Could not write zeros for preallocation',
};

function failed(errno: number, problem = PROBLEMS.off, format = 'raw'): ImageError {
  const code = errnoName(errno) as ErrnoName;
  const below = format === 'qcow2' && problem !== PROBLEMS.off;
  const where = below ? 'Failed to resize underlying file: ' : '';
  return new ImageError('invalid', code, `${where}${problem}: ${strerror(errno)}`);
}

function invalid(message: string): ImageError {
  return new ImageError('invalid', 'EINVAL', message);
}
