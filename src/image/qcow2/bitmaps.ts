/** The directory of persistent bitmaps: what an image's bitmaps are, not their contents. */
import { alignUp, divCeil, isAligned } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { readExactly, readUpTo } from '../read-bytes.js';
import { hasBit } from './features.js';
import type { Geometry } from './geometry.js';
import type { Qcow2Header } from './header.js';
import { hostOffsetOf } from './l2.js';
import { AUTOCLEAR, BITMAP_DIRECTORY_ENTRY, LIMIT } from './layout.js';

/** Bits of a directory entry's `flags`. */
export const BITMAP_FLAG = { IN_USE: 1, AUTO: 2, EXTRA_DATA_COMPATIBLE: 4 } as const;

const KNOWN_FLAGS = BITMAP_FLAG.IN_USE | BITMAP_FLAG.AUTO | BITMAP_FLAG.EXTRA_DATA_COMPATIBLE;

/** The only type of bitmap there is. */
export const DIRTY_TRACKING = 1;

// Bits of a table entry that must be 0, by halves; bit 0 means ones where there is no cluster.
const RESERVED_HIGH = 0xff00_0000;
const RESERVED_LOW = 0x1fe;

/** QEMU's limits on an entry. The bitmap's own size is bytes. */
const MIN_GRANULARITY_BITS = 9;
const MAX_GRANULARITY_BITS = 31;
export const MAX_BITMAP_NAME_SIZE = 1023;
const MAX_BITMAP_SIZE = 512 << 20;

export interface Bitmap {
  readonly name: string;
  readonly flags: number;
  /** Bytes of the disk that one bit stands for. */
  readonly granularity: number;
  /** Where its table lies in the file, in bytes. */
  readonly tableOffset: number;
  /** Entries of the table: clusters of the bitmap. */
  readonly tableSize: number;
  /** Bytes of extra data, of which nothing is known here. */
  readonly extraDataSize: number;
  /** Where its entry begins in the directory, in bytes. */
  readonly entryOffset: number;
}

/** Its bits may be wrong: whoever changed the disk last did not close the image. */
export function isInconsistent({ flags }: Pick<Bitmap, 'flags'>): boolean {
  return (flags & BITMAP_FLAG.IN_USE) !== 0;
}

/** Whether its bits may be used and changed: extra data can forbid it. */
export function isUsable({ flags, extraDataSize }: Bitmap): boolean {
  const known = extraDataSize === 0 || (flags & BITMAP_FLAG.EXTRA_DATA_COMPATIBLE) !== 0;
  return known && (flags & BITMAP_FLAG.IN_USE) === 0;
}

/** Clusters of a bitmap of a disk of `size` bytes. */
export function bitmapClusters(size: number, granularity: number, clusterSize: number): number {
  return divCeil(divCeil(size, granularity), clusterSize * 8);
}

/** Whether a disk of `size` bytes is too large for bitmaps of that granularity. */
export function isBitmapTooLarge(size: number, granularity: number): boolean {
  return size > MAX_BITMAP_SIZE * 8 * granularity;
}

/** The bitmaps of the image; none where the autoclear bit says that they are out of date. */
export function readBitmaps(storage: Storage, header: Qcow2Header): Bitmap[] {
  const { bitmaps } = header.extensions;
  if (bitmaps === null || !hasBit(header.autoclearFeatures, AUTOCLEAR.BITMAPS)) return [];
  const { nbBitmaps, bitmapDirectorySize: size, bitmapDirectoryOffset: offset } = bitmaps;
  if (nbBitmaps === 0) throw invalid('found bitmaps extension with zero bitmaps');
  if (nbBitmaps > LIMIT.MAX_BITMAPS) {
    throw invalid(`too many bitmaps: ${nbBitmaps}`, `at most ${LIMIT.MAX_BITMAPS}`);
  }
  if (offset === 0 || !isAligned(offset, header.geometry.clusterSize)) {
    throw invalid('bitmaps_ext: invalid bitmap directory offset', `0x${offset.toString(16)}`);
  }
  if (size > LIMIT.MAX_BITMAP_DIRECTORY_SIZE) {
    throw invalid(
      `bitmap directory size (${size}) exceeds the maximum supported size`,
      `${LIMIT.MAX_BITMAP_DIRECTORY_SIZE}`,
    );
  }
  const directory = readExactly(storage, offset, size, 'bitmap directory').view;
  return readDirectory(directory, nbBitmaps, header);
}

/** What is wrong with a bitmap table's entry of that host offset, or null. */
export function bitmapEntryProblem(low: number, high: number, host: number): string | null {
  if ((low & RESERVED_LOW) !== 0 || (high & RESERVED_HIGH) !== 0) return 'reserved bits set';
  return (low & 1) !== 0 && host !== 0 ? 'both a cluster and all ones' : null;
}

/**
 * Throws EINVAL where the table of a bitmap that is in order otherwise cannot be used, as QEMU does. Where it is to be
 * `whole`, it lies in the file, and what it names too: what a file lacks, QEMU takes for bits that are not set.
 */
export function checkBitmapTables(
  storage: Storage,
  { geometry, size }: Qcow2Header,
  bitmaps: readonly Bitmap[],
  whole: boolean,
): void {
  const read = bitmaps.filter((bitmap) => !isInconsistent(bitmap));
  const total = read.reduce((sum, { tableSize }) => sum + tableSize * 8, 0);
  // Many in one place would take for ever.
  if (whole && total > storage.size()) {
    const limit = `${total} bytes in a file of ${storage.size()}`;
    throw invalid('bitmap tables do not lie in the file, or lie over each other', limit);
  }
  for (const bitmap of read) {
    const { name, tableSize, granularity } = bitmap;
    if (!isBitmapTable(storage, geometry, bitmap, whole)) {
      throw invalid(`Could not read bitmap_table table from image for bitmap '${name}'`);
    }
    const needed = Math.max(1, bitmapClusters(size, granularity, geometry.clusterSize));
    if (tableSize === needed) continue;
    const limit = `its table has ${tableSize} entries, not ${needed}`;
    throw invalid(`Could not read bitmap '${name}' from image`, limit);
  }
}

/** Whether all entries of the bitmap's table are valid, and there if it is to be `whole`. */
function isBitmapTable(
  storage: Storage,
  { clusterSize }: Geometry,
  { tableOffset, tableSize }: Bitmap,
  whole: boolean,
): boolean {
  const { view, length } = readUpTo(storage, tableOffset, tableSize * 8);
  const end = whole ? storage.size() : Number.POSITIVE_INFINITY;
  if (whole && length < tableSize * 8) return false;
  for (let at = 0; at + 8 <= length; at += 8) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    const host = hostOffsetOf(low, high);
    if (host % clusterSize !== 0 || host >= end) return false;
    if (bitmapEntryProblem(low, high, host) !== null) return false;
  }
  return true;
}

function readDirectory(directory: DataView, nbBitmaps: number, header: Qcow2Header): Bitmap[] {
  const bitmaps: Bitmap[] = [];
  let at = 0;
  while (at + BITMAP_DIRECTORY_ENTRY.size <= directory.byteLength) {
    const entry = BITMAP_DIRECTORY_ENTRY.read(directory, at);
    const nameAt = at + BITMAP_DIRECTORY_ENTRY.size + entry.extraDataSize;
    const end = nameAt + entry.nameSize;
    if (end > directory.byteLength) break;
    const name = Buffer.from(directory.buffer, directory.byteOffset + nameAt, entry.nameSize);
    checkEntry(entry, name.toString(), header);
    bitmaps.push({
      name: name.toString(),
      flags: entry.flags,
      granularity: 2 ** entry.granularityBits,
      tableOffset: entry.bitmapTableOffset,
      tableSize: entry.bitmapTableSize,
      extraDataSize: entry.extraDataSize,
      entryOffset: at,
    });
    at = alignUp(end, 8);
  }
  if (bitmaps.length !== nbBitmaps || at !== directory.byteLength) {
    throw invalid(
      'bitmap directory is inconsistent',
      `${bitmaps.length} entries, ${nbBitmaps} expected`,
    );
  }
  return bitmaps;
}

/** The constraints that QEMU refuses to open an image for. */
function checkEntry(
  entry: ReturnType<typeof BITMAP_DIRECTORY_ENTRY.read>,
  name: string,
  { geometry: { clusterSize }, size }: Qcow2Header,
): void {
  const { flags, type, granularityBits, nameSize } = entry;
  const { bitmapTableOffset, bitmapTableSize } = entry;
  const problem =
    ((flags & ~KNOWN_FLAGS) !== 0 && `flags 0x${flags.toString(16)}`) ||
    (type !== DIRTY_TRACKING && `type ${type}`) ||
    (granularityBits < MIN_GRANULARITY_BITS && `granularity 2^${granularityBits}`) ||
    (granularityBits > MAX_GRANULARITY_BITS && `granularity 2^${granularityBits}`) ||
    (nameSize > MAX_BITMAP_NAME_SIZE && `a name of ${nameSize} bytes`) ||
    (bitmapTableSize === 0 && 'no table') ||
    (bitmapTableSize * clusterSize > MAX_BITMAP_SIZE && `${bitmapTableSize} clusters`) ||
    ((bitmapTableOffset === 0 || !isAligned(bitmapTableOffset, clusterSize)) &&
      `its table at 0x${bitmapTableOffset.toString(16)}`) ||
    ((flags & BITMAP_FLAG.IN_USE) === 0 &&
      bitmapTableSize < bitmapClusters(size, 2 ** granularityBits, clusterSize) &&
      `${bitmapTableSize} clusters for a disk of ${size} bytes`);
  if (problem === false) return;
  throw invalid(
    `Bitmap '${name.slice(0, MAX_BITMAP_NAME_SIZE)}' doesn't satisfy the constraints`,
    problem,
  );
}

/** Whether it has bitmaps of which the autoclear bit does not say that they are true. */
export function hasStaleBitmaps({ autoclearFeatures, extensions }: Qcow2Header): boolean {
  return extensions.bitmaps !== null && !hasBit(autoclearFeatures, AUTOCLEAR.BITMAPS);
}

/** What is said where the disk is to become another one. */
export function hasBitmaps(): ImageError {
  return new ImageError('unsupported', 'EBUSY', 'Device has active dirty bitmaps');
}

function invalid(message: string, limit?: string): ImageError {
  return new ImageError('invalid', 'EINVAL', message, limit === undefined ? {} : { limit });
}
