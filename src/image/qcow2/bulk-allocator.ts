/**
 * Where the contents of a new image go that is filled from its beginning to its end: one cluster behind
 * the other, nothing ever freed. What is allocated where is told to `BulkTables`, which writes tables
 * and counts at the end.
 */
import { alignUp, divCeil } from '../../codec/bits.js';
import type { Geometry } from './geometry.js';
import { largestCount } from './refcount-compare.js';

/** The numbers of an allocator that threads share: it is used by one at a time. */
const NEXT = 0;
const TAIL = 1;
const TAIL_END = 2;
const TAIL_COUNT = 3;
const TABLES = 4;

export class BulkAllocator {
  readonly #numbers: Float64Array;
  readonly #geometry: Geometry;
  readonly #largestCount: number;

  /** `numbers`: five, see `startAt`. */
  constructor(numbers: Float64Array, geometry: Geometry) {
    this.#numbers = numbers;
    this.#geometry = geometry;
    this.#largestCount = largestCount(geometry.refcountBits);
  }

  /** Before anything is allocated: everything goes behind byte `offset` of the file. */
  startAt(offset: number): void {
    this.#numbers.fill(0);
    this.#numbers[NEXT] = alignUp(offset, this.#geometry.clusterSize);
  }

  /** The first byte that is not allocated, a multiple of the cluster size. */
  get next(): number {
    return this.#numbers[NEXT]!;
  }

  /** `count` clusters in a row; answers the offset of the first. */
  clusters(count: number): number {
    const offset = this.#numbers[NEXT]!;
    this.#numbers[NEXT] = offset + count * this.#geometry.clusterSize;
    return offset;
  }

  /**
   * A cluster for the L2 table `l1Index`; 0 where it has one already. To be asked in the order of the
   * disk.
   */
  tableFor(l1Index: number): number {
    if (l1Index < this.#numbers[TABLES]!) return 0;
    this.#numbers[TABLES] = l1Index + 1;
    return this.clusters(1);
  }

  /**
   * `length` bytes for compressed data, less than a cluster: behind the last ones where they fit, or
   * where clusters follow that are free, so that they lie in a row.
   */
  bytes(length: number): number {
    const numbers = this.#numbers;
    const { clusterSize } = this.#geometry;
    const [tail, end] = [numbers[TAIL]!, numbers[TAIL_END]!];
    const shared = tail < end && numbers[TAIL_COUNT]! < this.#largestCount;
    const missing = tail + length - end;
    const continues = shared && (missing <= 0 || end === numbers[NEXT]);
    const offset = continues ? tail : numbers[NEXT]!;
    const more = continues ? Math.max(0, divCeil(missing, clusterSize)) : 1;
    if (more > 0) {
      numbers[TAIL_END] = this.clusters(more) + more * clusterSize;
      numbers[TAIL_COUNT] = 0;
    }
    numbers[TAIL] = offset + length;
    numbers[TAIL_COUNT]!++;
    return offset;
  }
}
