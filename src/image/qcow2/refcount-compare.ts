/**
 * The refcounts that an image stores, compared with those that were counted. Nothing is changed.
 *
 * A refcount block is one cluster of counts of 1 to 64 bits, the first cluster's first; counts
 * narrower than a byte fill each byte from its low bits up.
 */
import { alignDown, TWO_32 } from '../../codec/bits.js';
import type { Storage } from '../../storage/storage.js';
import type { Steps } from '../steps.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Geometry } from './geometry.js';
import { countIn, hasWrongFlag, PAGE_SIZE, type ReferenceCounts } from './reference-counts.js';
import { UNREADABLE } from './references.js';

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
  block(index: number): void;
  cluster(cluster: number): void;
}

/** What is compared: the blocks' offsets as the scan of references has them. */
export interface StoredRefcounts {
  readonly table: Float64Array;
  /** Clusters from the first on that are compared. */
  readonly end: number;
}

/** Told of each difference: it answers what the count is then, as flags are compared with that. */
export type ReportCount = (cluster: number, stored: number, counted: number) => number;

/** Compares the stored refcounts of the first `end` clusters with `counts`. */
export function* compareRefcounts(
  storage: Storage,
  geometry: Geometry,
  { table, end }: StoredRefcounts,
  counts: ReferenceCounts,
  report: ReportCount,
  unknown?: ReportUnknown,
): Steps<RefcountComparison> {
  const perBlock = countsPerBlock(geometry);
  const comparison = new Comparison(counts, report);
  const block = new IoBuffer(geometry.clusterSize);
  const stored = new Float64Array(PAGE_SIZE);
  for (const first of blocksToCompare(table, end, perBlock, counts)) {
    yield first / end;
    const last = Math.min(end, first + perBlock);
    const offset = table[first / perBlock] ?? 0;
    if (offset === UNREADABLE) {
      unknown?.block(first / perBlock);
      for (let cluster = first; cluster < last; cluster++) unknown?.cluster(cluster);
      comparison.unknown += last - first;
      continue;
    }
    readBlock(storage, block, offset);
    for (let at = first; at < last; ) {
      const stop = Math.min(last, alignDown(at, PAGE_SIZE) + PAGE_SIZE);
      // Where there is neither a block nor a reference, there is nothing to compare.
      if (offset !== 0 || counts.page(alignDown(at, PAGE_SIZE)) !== undefined) {
        readCounts(block.view, geometry.refcountBits, at - first, stop - at, stored);
        comparison.compare(at, stop, stored);
      }
      at = stop;
    }
  }
  return comparison;
}

/**
 * The first clusters of all blocks that are there, or whose clusters have references: in order, and in time
 * that goes by those, not by the size of a file that may be all holes.
 */
function* blocksToCompare(
  table: Float64Array,
  end: number,
  perBlock: number,
  counts: ReferenceCounts,
): Generator<number> {
  const pages = counts.pageStarts();
  let page = 0;
  for (let first = 0; first < end; first += perBlock) {
    while (pages[page]! + PAGE_SIZE <= first) page++;
    const next = pages[page] ?? end;
    const index = first / perBlock;
    if (next < first + perBlock || (table[index] ?? 0) !== 0) yield first;
    else if (index >= table.length) first = alignDown(next, perBlock) - perBlock;
  }
}

class Comparison implements RefcountComparison {
  leaks = 0;
  corruptions = 0;
  unknown = 0;
  hasUncounted = false;
  hasWrongFlags = false;
  highest = 0;
  readonly #counts: ReferenceCounts;
  readonly #report: ReportCount;

  constructor(counts: ReferenceCounts, report: ReportCount) {
    this.#counts = counts;
    this.#report = report;
  }

  /** Clusters of one page, with the counts that are stored. */
  compare(first: number, end: number, stored: Float64Array): void {
    const start = alignDown(first, PAGE_SIZE);
    const page = this.#counts.page(start) ?? NO_REFERENCES;
    for (let cluster = first; cluster < end; cluster++) {
      const word = page[cluster - start]!;
      const count = stored[cluster - first]!;
      if (word === 0 && count === 0) continue;
      this.highest = cluster;
      if (countIn(word) !== count) this.#differ(cluster, count, word);
      else if (hasWrongFlag(word, count)) this.hasWrongFlags = true;
    }
  }

  #differ(cluster: number, count: number, word: number): void {
    const counted = countIn(word);
    if (count > counted) this.leaks++;
    else this.corruptions++;
    if (count === 0) this.hasUncounted = true;
    if (hasWrongFlag(word, this.#report(cluster, count, counted))) this.hasWrongFlags = true;
  }
}

const NO_REFERENCES = new Uint32Array(PAGE_SIZE);

/** `length` counts of a block, from the one at `index` on. */
function readCounts(
  view: DataView,
  refcountBits: number,
  index: number,
  length: number,
  target: Float64Array,
): void {
  if (refcountBits === 16) {
    for (let n = 0; n < length; n++) target[n] = view.getUint16((index + n) * 2);
  } else {
    for (let n = 0; n < length; n++) target[n] = readCount(view, refcountBits, index + n);
  }
}

/** A block; 0: none, which counts nothing, as what lies past the end of the file. */
export function readBlock(storage: Storage, block: IoBuffer, offset: number): void {
  const isThere = offset !== 0 && offset <= Number.MAX_SAFE_INTEGER;
  const n = isThere ? storage.read(block, 0, block.length, offset) : 0;
  block.bytes.fill(0, n);
}
