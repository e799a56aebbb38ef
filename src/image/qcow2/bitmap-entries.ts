/**
 * The bitmap directory as it is written: entry by entry, each as its bytes, so that what is not known
 * here (extra data) stays as it is.
 */
import { alignUp } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import { readExactly } from '../read-bytes.js';
import { DIRTY_TRACKING } from './bitmaps.js';
import type { BitmapsExtension } from './extensions.js';
import { BITMAP_DIRECTORY_ENTRY, LIMIT } from './layout.js';

const { size: FIXED_SIZE } = BITMAP_DIRECTORY_ENTRY;

/** One entry's bytes, padded to a multiple of 8. */
export type BitmapEntry = Buffer;

/** The fields of an entry that change. */
export interface EntryChange {
  readonly flags: number;
  readonly bitmapTableOffset?: number;
  /** Entries: clusters of bits. */
  readonly bitmapTableSize?: number;
}

/** The entries of a directory that was found valid, in order. */
export function readEntries(storage: Storage, directory: BitmapsExtension): BitmapEntry[] {
  const { bitmapDirectoryOffset, bitmapDirectorySize, nbBitmaps } = directory;
  const what = 'bitmap directory';
  const { bytes, view } = readExactly(storage, bitmapDirectoryOffset, bitmapDirectorySize, what);
  const entries: BitmapEntry[] = [];
  for (let at = 0; entries.length < nbBitmaps; ) {
    const { nameSize, extraDataSize } = BITMAP_DIRECTORY_ENTRY.read(view, at);
    const length = alignUp(FIXED_SIZE + extraDataSize + nameSize, 8);
    entries.push(bytes.subarray(at, at + length));
    at += length;
  }
  return entries;
}

/** An entry that has no table yet. `granularity`: bytes, a power of two. */
export function newBitmapEntry(name: string, granularity: number): BitmapEntry {
  const nameBytes = Buffer.from(name);
  const entry = Buffer.alloc(alignUp(FIXED_SIZE + nameBytes.length, 8));
  BITMAP_DIRECTORY_ENTRY.write(viewOf(entry), 0, {
    bitmapTableOffset: 0,
    bitmapTableSize: 0,
    flags: 0,
    type: DIRTY_TRACKING,
    granularityBits: Math.log2(granularity),
    nameSize: nameBytes.length,
    extraDataSize: 0,
  });
  nameBytes.copy(entry, FIXED_SIZE);
  return entry;
}

/** The same entry with other fields. */
export function changedBitmapEntry(entry: BitmapEntry, fields: EntryChange): BitmapEntry {
  const changed = Buffer.from(entry);
  const old = BITMAP_DIRECTORY_ENTRY.read(viewOf(entry), 0);
  BITMAP_DIRECTORY_ENTRY.write(viewOf(changed), 0, { ...old, ...fields });
  return changed;
}

/** Throws EFBIG where there are more than readers accept. */
export function checkDirectory(entries: readonly BitmapEntry[]): void {
  const size = entries.reduce((sum, { length }) => sum + length, 0);
  if (entries.length <= LIMIT.MAX_BITMAPS && size <= LIMIT.MAX_BITMAP_DIRECTORY_SIZE) return;
  throw new ImageError('invalid', 'EFBIG', 'Not enough space in the bitmap directory', {
    limit: `at most ${LIMIT.MAX_BITMAPS}, and ${LIMIT.MAX_BITMAP_DIRECTORY_SIZE} bytes`,
  });
}

/** All entries as one directory. */
export function directoryOf(entries: readonly BitmapEntry[]): IoBuffer {
  const directory = new IoBuffer(entries.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const entry of entries) {
    directory.bytes.set(entry, at);
    at += entry.length;
  }
  return directory;
}

function viewOf(entry: Buffer): DataView {
  return new DataView(entry.buffer, entry.byteOffset, entry.length);
}
