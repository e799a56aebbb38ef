/** Single refcounts as the file has them, in any order. */
import type { Storage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Geometry } from './geometry.js';
import { countsPerBlock, readBlock, readCount } from './refcount-compare.js';
import { UNREADABLE } from './references.js';

/** Bytes of blocks that are kept. */
const CACHE_SIZE = 8 << 20;

export class RefcountReader {
  readonly #storage: Storage;
  readonly #geometry: Geometry;
  readonly #table: Float64Array;
  readonly #perBlock: number;
  /** By index, the one that was used last at the end. */
  readonly #blocks = new Map<number, IoBuffer>();
  #index = -1;
  #block: IoBuffer | null = null;

  /** `table`: the blocks' offsets, as the scan of references has them. */
  constructor(storage: Storage, geometry: Geometry, table: Float64Array) {
    this.#storage = storage;
    this.#geometry = geometry;
    this.#table = table;
    this.#perBlock = countsPerBlock(geometry);
  }

  /** Null where it cannot be read. */
  get(cluster: number): number | null {
    const index = Math.floor(cluster / this.#perBlock);
    const offset = this.#table[index] ?? 0;
    if (offset === UNREADABLE) return null;
    if (offset === 0) return 0;
    if (index !== this.#index) {
      this.#block = this.#load(index, offset);
      this.#index = index;
    }
    return readCount(this.#block!.view, this.#geometry.refcountBits, cluster % this.#perBlock);
  }

  #load(index: number, offset: number): IoBuffer {
    const { clusterSize } = this.#geometry;
    const most = Math.max(1, CACHE_SIZE / clusterSize);
    let block = this.#blocks.get(index);
    this.#blocks.delete(index);
    if (block === undefined) {
      // The buffer of the one that was not used for the longest time is taken for it.
      const oldest = this.#blocks.size < most ? undefined : this.#blocks.entries().next().value;
      if (oldest !== undefined) this.#blocks.delete(oldest[0]);
      block = oldest?.[1] ?? new IoBuffer(clusterSize);
      readBlock(this.#storage, block, offset);
    }
    this.#blocks.set(index, block);
    return block;
  }
}
