/** Making raw images: a file of the disk's size, with its space or without. */
import { ERRNO, errnoOf, ImageError, isExpected } from '../errors.js';
import type { FileStorage } from '../storage/file.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { strerror } from '../sys/libc.js';
import { fillSpace } from './fill-space.js';

/**
 * Written at a file's start, so that the host has a block there: who opens it past the page cache finds
 * out by reading it how it must be aligned.
 */
export const FIRST_BLOCK = 4096;

/** What the protocols below formats can preallocate. */
export type FilePreallocation = 'off' | 'falloc' | 'full';

/**
 * Makes the empty file `storage` one of `size` bytes that reads as zeroes. Durable where space was
 * asked for. `advance` is told the part done, from 0 to 1, and may throw: the file is empty then.
 */
export async function fillRawFile(
  storage: FileStorage,
  size: number,
  preallocation: FilePreallocation,
  advance: (fraction: number) => Promise<void>,
): Promise<void> {
  try {
    if (preallocation === 'off') {
      worded('Could not resize file', () => storage.truncate(size));
      if (size > 0)
        storage.write(new IoBuffer(Math.min(size, FIRST_BLOCK)), 0, Math.min(size, FIRST_BLOCK), 0);
      return;
    }
    await fillSpace(storage, 0, size, preallocation, advance);
    await advance(1);
    storage.flush();
  } catch (error) {
    storage.truncate(0);
    if (preallocation === 'off' || !isExpected(error) || error instanceof ImageError) throw error;
    throw failed(PROBLEMS[preallocation], error);
  }
}

/**
 * Sets aside the space that the empty file `storage` is to have, which stays empty. False where that is not
 * enough: all of it must be written then, zeroes, too.
 */
export function reserveRawFile(
  storage: FileStorage,
  size: number,
  preallocation: FilePreallocation,
): boolean {
  if (preallocation === 'off' || size === 0) return true;
  try {
    return storage.reserveBehind(0, size) && preallocation === 'falloc';
  } catch (error) {
    throw isExpected(error) ? failed(PROBLEMS[preallocation], error) : error;
  }
}

const PROBLEMS = {
  falloc: 'Could not preallocate data for the new file',
  full: 'Could not write zeros for preallocation',
} as const;

function worded(problem: string, body: () => void): void {
  try {
    body();
  } catch (error) {
    throw isExpected(error) ? failed(problem, error) : error;
  }
}

function failed(problem: string, error: Error): ImageError {
  const errno = errnoOf(error);
  if (errno === ERRNO.EFBIG) {
    return new ImageError('invalid', 'EFBIG', "The image size is too large for file format 'raw'");
  }
  return new ImageError('invalid', 'EIO', `${problem}: ${strerror(errno)}`, {}, error);
}
