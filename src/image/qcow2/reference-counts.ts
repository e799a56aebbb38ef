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
];

// A cluster's word: its use in the low bits, its count above them.
const USE_BITS = 3;
const USE_MASK = (1 << USE_BITS) - 1;

/** Counts stop here; it then stands for any larger number. */
export const MAX_COUNT = 2 ** (32 - USE_BITS) - 1;

/** Clusters of a page. */
const PAGE_SIZE = 1 << 14;

/** 2 GiB of pages: 32 TiB in clusters of 64 KiB. */
const MAX_PAGES = 1 << 15;

export class ReferenceCounts {
  readonly #pages = new Map<number, Uint32Array>();
  /** The page that was looked at last. */
  #number = -1;
  #page: Uint32Array | undefined;
  #end = 0;

  /** One past the last cluster that was ever referenced. */
  get end(): number {
    return this.#end;
  }

  /**
   * Adds `n` references from structures of that use. Answers the use that it contradicts, and adds
   * nothing then: only L2 tables and data can have several references, and all from the same kind.
   * Throws EFBIG where the image is too large to be counted in memory.
   */
  add(cluster: number, use: ClusterUse, n: number): ClusterUse {
    const page = this.#find(cluster) ?? this.#addPage(cluster);
    const at = cluster % PAGE_SIZE;
    const word = page[at]!;
    const known = (word & USE_MASK) as ClusterUse;
    if (known !== USE.NONE && (known !== use || use < USE.L2_TABLE)) return known;
    const count = Math.min((word >>> USE_BITS) + n, MAX_COUNT);
    page[at] = ((count << USE_BITS) | use) >>> 0;
    if (cluster >= this.#end) this.#end = cluster + 1;
    return USE.NONE;
  }

  /** Takes all references of the cluster away. */
  release(cluster: number): void {
    const page = this.#find(cluster);
    if (page !== undefined) page[cluster % PAGE_SIZE] = 0;
  }

  count(cluster: number): number {
    const page = this.#find(cluster);
    return page === undefined ? 0 : page[cluster % PAGE_SIZE]! >>> USE_BITS;
  }

  /**
   * Visits the clusters that have references, in order. What `visit` adds is visited only where it
   * lies ahead in pages that were there from the start.
   */
  forEach(visit: (cluster: number, count: number, use: ClusterUse) => void): void {
    const numbers = Float64Array.from(this.#pages.keys()).sort();
    for (const number of numbers) {
      const page = this.#pages.get(number)!;
      for (let at = 0; at < PAGE_SIZE; at++) {
        const word = page[at]!;
        if (word === 0) continue;
        visit(number * PAGE_SIZE + at, word >>> USE_BITS, (word & USE_MASK) as ClusterUse);
      }
    }
  }

  #find(cluster: number): Uint32Array | undefined {
    const number = Math.floor(cluster / PAGE_SIZE);
    if (number !== this.#number) {
      this.#number = number;
      this.#page = this.#pages.get(number);
    }
    return this.#page;
  }

  #addPage(cluster: number): Uint32Array {
    if (this.#pages.size === MAX_PAGES) {
      throw new ImageError('unsupported', 'EFBIG', 'Too many clusters to count their references', {
        limit: `at most ${MAX_PAGES * PAGE_SIZE}`,
      });
    }
    const page = new Uint32Array(PAGE_SIZE);
    this.#number = Math.floor(cluster / PAGE_SIZE);
    this.#page = page;
    this.#pages.set(this.#number, page);
    return page;
  }
}
