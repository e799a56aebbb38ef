/**
 * The refcounts that an image stores, compared with those that were counted. Nothing is changed.
 *
 * A refcount block is one cluster of counts of 1 to 64 bits, the first cluster's first; counts
 * narrower than a byte fill each byte from its low bits up.
 */
import { TWO_32 } from '../../codec/bits.js';
import type { Storage } from '../../storage/storage.js';
import type { Geometry } from './geometry.js';
import type { ReferenceCounts } from './reference-counts.js';
import { TableReader } from './table-reader.js';

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
  /** Indexes of the refcount blocks that are not there and should be. */
  readonly missingBlocks: ReadonlySet<number>;
}

/** A cluster whose stored count is not the counted one. */
export type ReportCount = (cluster: number, stored: number, counted: number) => void;

/**
 * Compares the stored refcounts of all clusters with `counts`; `table` has the offsets of the
 * refcount blocks, all of them valid. Calls `report` for each difference.
 */
export function compareRefcounts(
  storage: Storage,
  geometry: Geometry,
  table: Float64Array,
  counts: ReferenceCounts,
  report: ReportCount = () => {},
): RefcountComparison {
  const perBlock = countsPerBlock(geometry);
  const { clusterSize, refcountBits } = geometry;
  const reader = new TableReader(storage);
  const { view } = reader.buffer;
  const missingBlocks = new Set<number>();
  let leaks = 0;
  let corruptions = 0;
  const compare = (cluster: number, stored: number, counted: number): void => {
    if (stored === counted) return;
    if (stored > counted) leaks++;
    else corruptions++;
    report(cluster, stored, counted);
  };
  for (const [index, offset] of table.entries()) {
    if (offset === 0) continue;
    reader.forEachBlock(offset, clusterSize, () => {
      for (let n = 0; n < perBlock; n++) {
        const cluster = index * perBlock + n;
        compare(cluster, readCount(view, refcountBits, n), counts.count(cluster));
      }
    });
  }
  counts.forEach((cluster, counted) => {
    const index = Math.floor(cluster / perBlock);
    if (index < table.length && table[index] !== 0) return;
    missingBlocks.add(index);
    compare(cluster, 0, counted);
  });
  return { leaks, corruptions, missingBlocks };
}
