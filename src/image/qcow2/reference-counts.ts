/**
 * How many references each host cluster has, and from structures of which kind. A number for each
 * cluster, in pages that are made when they are first needed: holes of a sparse file cost nothing.
 */
import { ImageError } from '../../errors.js';

/** What a host cluster is used for. */
export const USE = {
  NONE: 0,
  HEADER: 1,
  L1_TABLE: 2,
  REFCOUNTS: 3,
  SNAPSHOT_TABLE: 4,
  BITMAP: 5,
  L2_TABLE: 6,
  DATA: 7,
  /** Data, and an L2 table. */
  DATA_AND_L2: 8,
  /** Of several kinds, or metadata twice. */
  MIXED: 9,
} as const;

export type ClusterUse = (typeof USE)[keyof typeof USE];

/** In words, for messages. */
export const USE_NAMES: readonly string[] = [
  'nothing',
  'header',
  'L1 table',
  'refcount structure',
  'snapshot table',
  'bitmap',
  'L2 table',
  'data cluster',
  'data cluster and L2 table',
  'of several uses',
];

// A cluster's word: its use in the low bits, then flags, then its count.
const USE_BITS = 4;
const USE_MASK = (1 << USE_BITS) - 1;
const COUNT_SHIFT = 6;

/** Flags of a cluster: an entry of the active disk refers to it with COPIED, or without. */
export const SEEN = { NOTHING: 0, COPIED: 1 << USE_BITS, NOT_COPIED: 2 << USE_BITS } as const;

export type SeenFlag = (typeof SEEN)[keyof typeof SEEN];

/** Answer of `add`: nothing was added, as the count would be larger than there can be. */
export const OVERFLOW = 16;

/** Counts stop here; it then stands for any larger number. */
export const MAX_COUNT = 2 ** (32 - COUNT_SHIFT) - 1;

/** Clusters of a page: few, as each cluster that lies alone in a sparse file takes a whole one. */
export const PAGE_SIZE = 1 << 8;

/** 2 GiB of pages: 32 TiB in clusters of 64 KiB. */
const MAX_PAGES = 1 << 21;

/** Pages that are made at once. */
const SLAB_PAGES = 64;

export class ReferenceCounts {
  readonly #pages = new Map<number, Uint32Array>();
  readonly #largest: number;
  /** The page that was looked at last, and its first cluster. */
  #start = 0;
  #page: Uint32Array | undefined;
  #end = 0;
  /** Memory for the next pages. */
  #slab = new Uint32Array(0);

  /** `largest`: no cluster can have more references. */
  constructor(largest = Number.POSITIVE_INFINITY) {
    this.#largest = largest;
  }

  /** One past the last cluster that was ever referenced. */
  get end(): number {
    return this.#end;
  }

  /**
   * Adds `n` references from structures of that use. Answers `OVERFLOW`, or the use that it contradicts,
   * or `USE.NONE`: only L2 tables and data can have several references, and all from the same kind.
   * Throws EFBIG where the image is too large to be counted in memory.
   */
  add(
    cluster: number,
    use: ClusterUse,
    n: number,
    seen: SeenFlag = SEEN.NOTHING,
  ): ClusterUse | typeof OVERFLOW {
    const page = this.#find(cluster) ?? this.#addPage();
    const at = cluster - this.#start;
    const word = page[at]!;
    if (cluster >= this.#end) this.#end = cluster + 1;
    if (word === 0 && n <= this.#largest) {
      page[at] = Math.min(n, MAX_COUNT) * (1 << COUNT_SHIFT) + (seen | use);
      return USE.NONE;
    }
    const known = (word & USE_MASK) as ClusterUse;
    const count = (word >>> COUNT_SHIFT) + n;
    if (count > this.#largest) return OVERFLOW;
    const kept = Math.min(count, MAX_COUNT) * (1 << COUNT_SHIFT);
    if (known === USE.NONE || (known === use && use >= USE.L2_TABLE)) {
      page[at] = kept + ((word & (SEEN.COPIED | SEEN.NOT_COPIED)) | seen | use);
      return USE.NONE;
    }
    const both =
      known >= USE.L2_TABLE && known <= USE.DATA_AND_L2 && use >= USE.L2_TABLE
        ? USE.DATA_AND_L2
        : USE.MIXED;
    page[at] = kept + ((word & (SEEN.COPIED | SEEN.NOT_COPIED)) | seen | both);
    return known;
  }

  /**
   * The same for a run of `length` clusters, as far as they have no references yet. Answers how many it
   * has added to: none where the first has some.
   */
  addFresh(first: number, length: number, use: ClusterUse, n: number, seen: SeenFlag): number {
    const page = this.#find(first) ?? this.#addPage();
    if (n > this.#largest) return 0;
    const word = Math.min(n, MAX_COUNT) * (1 << COUNT_SHIFT) + (seen | use);
    const start = first - this.#start;
    const end = Math.min(PAGE_SIZE, start + length);
    let at = start;
    for (; at < end && page[at] === 0; at++) page[at] = word;
    const done = at - start;
    if (first + done > this.#end) this.#end = first + done;
    return done;
  }

  /** Takes all references of the cluster away. */
  release(cluster: number): void {
    const page = this.#find(cluster);
    if (page !== undefined) page[cluster - this.#start] = 0;
  }

  /** Takes `n` references of the cluster away; with the last one it has no use any more. */
  remove(cluster: number, n: number): void {
    const page = this.#find(cluster);
    if (page === undefined) return;
    const at = cluster - this.#start;
    const count = (page[at]! >>> COUNT_SHIFT) - n;
    page[at] = count <= 0 ? 0 : count * (1 << COUNT_SHIFT) + (page[at]! & ((1 << COUNT_SHIFT) - 1));
  }

  count(cluster: number): number {
    const page = this.#find(cluster);
    return page === undefined ? 0 : page[cluster - this.#start]! >>> COUNT_SHIFT;
  }

  /** What is known of the cluster, for the functions below; 0 where it has no references. */
  word(cluster: number): number {
    const page = this.#find(cluster);
    return page === undefined ? 0 : page[cluster - this.#start]!;
  }

  /** The words of `PAGE_SIZE` clusters, `first` and those behind it; undefined where all are 0. */
  page(first: number): Readonly<Uint32Array> | undefined {
    return this.#pages.get(first / PAGE_SIZE);
  }

  /** The pages in which clusters may have references: the first cluster of each, in order. */
  pageStarts(): Float64Array {
    return Float64Array.from(this.#pages.keys(), (number) => number * PAGE_SIZE).sort();
  }

  /**
   * Visits the clusters that have references, in order. What `visit` adds is visited only where it
   * lies ahead in pages that were there from the start.
   */
  forEach(visit: (cluster: number, count: number, use: ClusterUse) => void): void {
    for (const start of this.pageStarts()) {
      const page = this.page(start)!;
      for (let at = 0; at < PAGE_SIZE; at++) {
        const word = page[at]!;
        if (word === 0) continue;
        visit(start + at, word >>> COUNT_SHIFT, (word & USE_MASK) as ClusterUse);
      }
    }
  }

  #find(cluster: number): Uint32Array | undefined {
    const start = this.#start;
    if (cluster < start || cluster >= start + PAGE_SIZE || this.#page === undefined) {
      const number = Math.floor(cluster / PAGE_SIZE);
      this.#start = number * PAGE_SIZE;
      this.#page = this.#pages.get(number);
    }
    return this.#page;
  }

  /** Makes the page that was looked for last. */
  #addPage(): Uint32Array {
    if (this.#pages.size === MAX_PAGES) {
      throw new ImageError('unsupported', 'EFBIG', 'Too many clusters to count their references', {
        limit: `at most ${MAX_PAGES * PAGE_SIZE}`,
      });
    }
    if (this.#slab.length === 0) this.#slab = new Uint32Array(SLAB_PAGES * PAGE_SIZE);
    const page = this.#slab.subarray(0, PAGE_SIZE);
    this.#slab = this.#slab.subarray(PAGE_SIZE);
    this.#page = page;
    this.#pages.set(this.#start / PAGE_SIZE, page);
    return page;
  }
}

export function countIn(word: number): number {
  return word >>> COUNT_SHIFT;
}

export function useIn(word: number): ClusterUse {
  return (word & USE_MASK) as ClusterUse;
}

/** Whether entries of the active disk refer to the cluster with flags that `count` contradicts. */
export function hasWrongFlag(word: number, count: number): boolean {
  return (word & (count === 1 ? SEEN.NOT_COPIED : SEEN.COPIED)) !== 0;
}
