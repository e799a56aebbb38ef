/**
 * The refcounts that an image stores, compared with those that were counted. Nothing is changed.
 *
 * A refcount block is one cluster of counts of 1 to 64 bits, the first cluster's first; counts
 * narrower than a byte fill each byte from its low bits up.
 */
import { TWO_32 } from '../../codec/bits.js';
import type { Storage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Geometry } from './geometry.js';
import { countIn, hasWrongFlag, type ReferenceCounts } from './reference-counts.js';
import { isUnreadable } from './references.js';

/** Clusters whose counts one refcount block holds. */
export function countsPerBlock(geometry: Geometry): number {
  return (geometry.clusterSize * 8) / geometry.refcountBits;
}

/** The largest count of that many bits; not exact beyond 2^53. */
export function largestCount(refcountBits: number): number {
  return 2 ** refcountBits - 1;
}

/** Count `index` of the block that begins at the view's first byte; not exact beyond 2^53. */
export function readCount(view: DataView, refcountBits: number, index: number): number {
  if (refcountBits === 64) {
    return view.getUint32(index * 8) * TWO_32 + view.getUint32(index * 8 + 4);
  }
  if (refcountBits === 32) return view.getUint32(index * 4);
  if (refcountBits === 16) return view.getUint16(index * 2);
  const bit = index * refcountBits;
  return (view.getUint8(bit >>> 3) >>> (bit & 7)) & ((1 << refcountBits) - 1);
}

/** Stores a count below 2^32 that fits the width. */
export function writeCount(
  view: DataView,
  refcountBits: number,
  index: number,
  count: number,
): void {
  if (refcountBits === 64) {
    view.setUint32(index * 8, 0);
    view.setUint32(index * 8 + 4, count);
  } else if (refcountBits === 32) {
    view.setUint32(index * 4, count);
  } else if (refcountBits === 16) {
    view.setUint16(index * 2, count);
  } else {
    const bit = index * refcountBits;
    const mask = ((1 << refcountBits) - 1) << (bit & 7);
    const rest = view.getUint8(bit >>> 3) & ~mask;
    view.setUint8(bit >>> 3, rest | (count << (bit & 7)));
  }
}

export interface RefcountComparison {
  /** Clusters whose stored count is too high: space is lost, nothing else. */
  readonly leaks: number;
  /** Clusters whose stored count is too low: they could be given away while in use. */
  readonly corruptions: number;
  /** Clusters whose count cannot be read. */
  readonly unknown: number;
  /** Of the corruptions, some have a count of 0. */
  readonly hasUncounted: boolean;
  /** Some COPIED flag of the active disk contradicts its cluster's count. */
  readonly hasWrongFlags: boolean;
  /** The last cluster that has a count or references. */
  readonly highest: number;
}

/** Told of what cannot be read: a block, and then each of its clusters. */
export interface ReportUnknown {
  block(index: number, offset: number): void;
  cluster(cluster: number): void;
}

/** What is compared: the blocks' offsets as the scan of references has them. */
export interface StoredRefcounts {
  readonly table: Float64Array;
  /** Clusters from the first on that are compared. */
  readonly end: number;
}

/**
 * Compares the stored refcounts of the first `end` clusters with `counts`. Calls `report` for each
 * difference, and answers what the count is then, as flags are compared with that.
 */
export function compareRefcounts(
  storage: Storage,
  geometry: Geometry,
  { table, end }: StoredRefcounts,
  counts: ReferenceCounts,
  report: (cluster: number, stored: number, counted: number) => number,
  unknown?: ReportUnknown,
): RefcountComparison {
  const perBlock = countsPerBlock(geometry);
  const { refcountBits } = geometry;
  const found = {
    leaks: 0,
    corruptions: 0,
    unknown: 0,
    hasUncounted: false,
    hasWrongFlags: false,
    highest: 0,
  };
  const block = new IoBuffer(geometry.clusterSize);
  for (let first = 0; first < end; first += perBlock) {
    const last = Math.min(end, first + perBlock);
    const offset = table[first / perBlock] ?? 0;
    if (isUnreadable(offset, geometry)) {
      unknown?.block(first / perBlock, offset);
      for (let cluster = first; cluster < last; cluster++) unknown?.cluster(cluster);
      found.unknown += last - first;
      continue;
    }
    if (offset === 0 && !counts.hasAny(first, last)) continue;
    readBlock(storage, block, offset);
    for (let cluster = first; cluster < last; cluster++) {
      const word = counts.word(cluster);
      const counted = countIn(word);
      let stored = readCount(block.view, refcountBits, cluster - first);
      if (stored !== 0 || counted !== 0) found.highest = cluster;
      if (stored !== counted) {
        if (stored > counted) found.leaks++;
        else found.corruptions++;
        if (stored === 0) found.hasUncounted = true;
        stored = report(cluster, stored, counted);
      }
      if (hasWrongFlag(word, stored)) found.hasWrongFlags = true;
    }
  }
  return found;
}

/** A block; 0: none, which counts nothing, as what lies past the end of the file. */
export function readBlock(storage: Storage, block: IoBuffer, offset: number): void {
  const n = offset === 0 ? 0 : storage.read(block, 0, block.length, offset);
  block.bytes.fill(0, n);
}
