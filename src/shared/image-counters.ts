/**
 * What threads have read and written of an image, and how its metadata cache served them, in shared memory. Each
 * thread adds to words of its own without atomics; who reads adds up what all have.
 */

// Doubles. A record is two cache lines.
const CACHE_HITS = 0;
const CACHE_MISSES = 1;
const READS = 2;
const READ_BYTES = 3;
const WRITES = 4;
const WRITTEN_BYTES = 5;
const RECORD = 16;

export interface ImageTotals {
  readonly cacheHits: number;
  readonly cacheMisses: number;
  readonly reads: number;
  readonly readBytes: number;
  readonly writes: number;
  readonly writtenBytes: number;
}

export function allocateImageCounters(threads: number): SharedArrayBuffer {
  return new SharedArrayBuffer(threads * RECORD * 8);
}

export class ImageCounters {
  readonly #words: Float64Array;

  /** Those of the thread with that number, from 1. */
  constructor(memory: SharedArrayBuffer, owner: number) {
    this.#words = new Float64Array(memory, (owner - 1) * RECORD * 8, RECORD);
  }

  /** A slice was in the cache. */
  hit(): void {
    this.#words[CACHE_HITS]!++;
  }

  /** A slice had to be loaded. */
  miss(): void {
    this.#words[CACHE_MISSES]!++;
  }

  /** A request read so many bytes. */
  read(bytes: number): void {
    this.#words[READS]!++;
    this.#words[READ_BYTES]! += bytes;
  }

  wrote(bytes: number): void {
    this.#words[WRITES]!++;
    this.#words[WRITTEN_BYTES]! += bytes;
  }
}

export function imageTotals(memory: SharedArrayBuffer): ImageTotals {
  const words = new Float64Array(memory);
  const sum = (word: number): number => {
    let total = 0;
    for (let at = word; at < words.length; at += RECORD) total += words[at]!;
    return total;
  };
  return {
    cacheHits: sum(CACHE_HITS),
    cacheMisses: sum(CACHE_MISSES),
    reads: sum(READS),
    readBytes: sum(READ_BYTES),
    writes: sum(WRITES),
    writtenBytes: sum(WRITTEN_BYTES),
  };
}
