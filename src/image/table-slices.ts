/** Single entries of a file's tables, through the cache that all threads share. */
import { alignDown } from '../codec/bits.js';
import { type SliceCache, SLICE_SIZE } from '../shared/slice-cache.js';

/** Slices begin at multiples of it. */
const SLICE_UNIT = 512;

/**
 * Where the slice begins that holds the entry at byte `position` of the table at byte `table`: a table that
 * lies nowhere in particular has slices of its own, of which the first may begin before it.
 */
export function sliceAt(table: number, position: number): number {
  const first = alignDown(table, SLICE_UNIT);
  return first + alignDown(position - first, SLICE_SIZE);
}

export class TableSlices {
  /** The halves of the entry that `look64` read last. */
  low = 0;
  high = 0;
  readonly #cache: SliceCache;
  readonly #file: number;

  /** `file`: the layer's number in its chain. */
  constructor(cache: SliceCache, file: number) {
    this.#cache = cache;
    this.#file = file;
  }

  /**
   * Reads the 64-bit entry at byte `position`, a multiple of 8. Throws where the file has none there. `table`:
   * see `sliceAt`; the file's own pages where it is not given.
   */
  look64(position: number, table = 0): void {
    const cache = this.#cache;
    const slice = sliceAt(table, position);
    let index: number;
    let sequence: number;
    do {
      index = cache.find(this.#file, slice);
      sequence = cache.sequence;
      const at = index + (position - slice) / 4;
      this.low = cache.words[at]!;
      this.high = cache.words[at + 1]!;
    } while (!cache.unchanged(index, sequence));
  }

  /** The 32-bit entry at byte `position`, a multiple of 4. Throws as `look64`. */
  look32(position: number): number {
    const cache = this.#cache;
    const slice = alignDown(position, SLICE_SIZE);
    let index: number;
    let sequence: number;
    let entry: number;
    do {
      index = cache.find(this.#file, slice);
      sequence = cache.sequence;
      entry = cache.words[index + (position - slice) / 4]!;
    } while (!cache.unchanged(index, sequence));
    return entry;
  }
}
