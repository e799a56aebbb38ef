/** The bits of a bitmap as an image stores them: a table that names clusters of bits. */
import { forEachRun } from '../../codec/bit-runs.js';
import { ImageError } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import { readExactly } from '../read-bytes.js';
import { type Bitmap, bitmapEntryProblem } from './bitmaps.js';
import { hostOffsetOf } from './l2.js';

const ENTRY_SIZE = 8;

/** Where a disk is dirty. */
export interface DirtySource {
  /**
   * Calls `visit` for what is dirty in a range of the disk, in order: [start, end), bytes. Runs may
   * adjoin, and reach as far over the range as a bit does.
   */
  forEachDirty(from: number, to: number, visit: (start: number, end: number) => void): void;
}

/** What a table's entry says of its bits: none is set, all are, or where they lie in the file. */
export type BitsPlace = 'zeroes' | 'ones' | number;

export class StoredBitmap implements DirtySource {
  readonly bitmap: Bitmap;
  readonly places: readonly BitsPlace[];
  readonly #storage: Storage;
  readonly #end: number;
  readonly #bits: IoBuffer;
  /** Which entry's bits were read last. */
  #read = -1;

  /** `end`: behind that byte of the disk, nothing is dirty. Throws where an entry is invalid. */
  constructor(storage: Storage, bitmap: Bitmap, clusterSize: number, end: number) {
    this.bitmap = bitmap;
    this.#storage = storage;
    this.#end = end;
    this.#bits = new IoBuffer(clusterSize);
    this.places = readPlaces(storage, bitmap, clusterSize);
  }

  /** Bytes of the disk that a cluster of bits tells of. */
  get coverage(): number {
    return this.#bits.length * 8 * this.bitmap.granularity;
  }

  forEachDirty(from: number, to: number, visit: (start: number, end: number) => void): void {
    const { coverage } = this;
    const stop = Math.min(to, this.#end, this.places.length * coverage);
    for (let at = from; at < stop; ) {
      const index = Math.floor(at / coverage);
      const end = Math.min(stop, (index + 1) * coverage);
      this.#visitCluster(index, at, end, visit);
      at = end;
    }
  }

  #visitCluster(
    index: number,
    from: number,
    to: number,
    visit: (start: number, end: number) => void,
  ): void {
    const place = this.places[index]!;
    if (place === 'zeroes') return;
    if (place === 'ones') {
      visit(from, to);
      return;
    }
    const { granularity } = this.bitmap;
    if (this.#read !== index) {
      this.#read = -1;
      const n = this.#storage.read(this.#bits, 0, this.#bits.length, place);
      this.#bits.bytes.fill(0, n);
      this.#read = index;
    }
    const base = index * this.coverage;
    const first = Math.floor((from - base) / granularity);
    const end = Math.ceil((to - base) / granularity);
    forEachRun(this.#bits.bytes, first, end, (start, stop) =>
      visit(base + start * granularity, Math.min(base + stop * granularity, this.#end)),
    );
  }
}

/** Throws EINVAL where an entry is invalid or leads past the end of the file. */
export function readPlaces(
  storage: Storage,
  { name, tableOffset, tableSize }: Bitmap,
  clusterSize: number,
): BitsPlace[] {
  const { view } = readExactly(storage, tableOffset, tableSize * ENTRY_SIZE, 'bitmap table');
  const size = storage.size();
  return Array.from({ length: tableSize }, (_, index) => {
    const high = view.getUint32(index * ENTRY_SIZE);
    const low = view.getUint32(index * ENTRY_SIZE + 4);
    const host = hostOffsetOf(low, high);
    const problem = bitmapEntryProblem(low, high, host);
    if (problem === null && host % clusterSize === 0 && host < size) {
      if (host !== 0) return host;
      return (low & 1) === 1 ? 'ones' : 'zeroes';
    }
    const message = `Could not read bitmap_table table from image for bitmap '${name}'`;
    throw new ImageError('corrupt', 'EINVAL', message, {
      limit: `entry ${index}: ${problem ?? `cluster at 0x${host.toString(16)}`}`,
    });
  });
}
