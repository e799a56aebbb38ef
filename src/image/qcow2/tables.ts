/**
 * Changing the tables of an image: single entries through the shared cache, where they wait for the
 * flush, and whole new clusters straight in the file. For who holds the image's reservation.
 */
import { TWO_32 } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import type { ImageState } from '../../shared/image-state.js';
import { NO_ROOM, type Rank, type SliceCache } from '../../shared/slice-cache.js';
import type { MutableStorage } from '../../storage/storage.js';
import type { IoBuffer } from '../../sys/io-buffer.js';
import type { DataFile } from './data-file.js';
import type { Geometry } from './geometry.js';
import { hostOffsetOf, isCompressed, isCopied, ownsHost } from './l2.js';

/** A table that lies where something says. Bytes. */
export interface Place {
  readonly offset: number;
  readonly size: number;
}

/** The number of the written file in the cache: the top of its chain. */
export const TOP_FILE = 0;

export class Tables {
  readonly geometry: Geometry;
  readonly storage: MutableStorage;
  readonly cache: SliceCache;
  readonly state: ImageState;
  /** Where guest clusters lie; null: in the image itself. */
  readonly data: DataFile | null;
  /** Writes all dirty slices back, in order: called where one more finds no room. */
  makeRoom: () => void = () => {
    throw new Error('nobody makes room');
  };
  /** Called when clusters are counted that become tables, before anything names them. */
  countsTables: () => void = () => {};
  /** Where the LUKS header lies; of no bytes without one. */
  cryptoHeader: Place = { offset: 0, size: 0 };
  /** The directory of bitmaps; of no size where there are none. */
  bitmapDirectory: Place = { offset: 0, size: 0 };
  /** The entry that `read` found, in halves. */
  low = 0;
  high = 0;
  readonly #zeroes: IoBuffer;

  constructor(
    geometry: Geometry,
    storage: MutableStorage,
    cache: SliceCache,
    state: ImageState,
    zeroes: IoBuffer,
    data: DataFile | null = null,
  ) {
    this.data = data;
    this.geometry = geometry;
    this.storage = storage;
    this.cache = cache;
    this.state = state;
    this.#zeroes = zeroes;
  }

  /** Reads the 64-bit entry at `offset` of the file into `low` and `high`. */
  read(offset: number): void {
    const { cache } = this;
    const within = offset % this.geometry.sliceSize;
    let index: number;
    let sequence: number;
    do {
      index = cache.find(TOP_FILE, offset - within);
      sequence = cache.sequence;
      const at = index + within / 4;
      this.low = cache.words[at]!;
      this.high = cache.words[at + 1]!;
    } while (!cache.unchanged(index, sequence));
  }

  /** Whether the L2 entry of the guest cluster at `guest` has a place of its own, to be written to. */
  owns(low: number, high: number, guest: number): boolean {
    if (this.data === null) return ownsHost(low, high);
    // The first one's offset is 0. Reading tells of an entry with another one's.
    return isCopied(high) && !isCompressed(high) && hostOffsetOf(low, high) === guest;
  }

  /** Changes the 64-bit entry at `offset`. */
  write(offset: number, low: number, high: number, rank: Rank): void {
    const within = offset % this.geometry.sliceSize;
    const index = this.edit(offset - within, rank);
    const at = index + within / 4;
    this.cache.words[at] = low;
    this.cache.words[at + 1] = high;
    this.cache.endEdit(index);
  }

  /** Opens the slice at `offset` for changes; `cache.endEdit` must follow, and nothing between. */
  edit(offset: number, rank: Rank): number {
    let index = this.cache.edit(TOP_FILE, offset, rank);
    if (index === NO_ROOM) {
      this.makeRoom();
      index = this.cache.edit(TOP_FILE, offset, rank);
      if (index === NO_ROOM) throw new Error('no room for a dirty slice after all were written');
    }
    return index;
  }

  /** Writes zeroes over clusters that become tables, and forgets what they were. */
  clear(offset: number, length: number): void {
    this.forget(offset, length);
    this.writeZeroes(offset, length);
  }

  writeZeroes(offset: number, length: number): void {
    for (let done = 0; done < length; ) {
      const n = Math.min(length - done, this.#zeroes.length);
      this.storage.write(this.#zeroes, 0, n, offset + done);
      done += n;
    }
    this.#touched(offset + length);
  }

  /** Writes a whole table at once, past the cache: its clusters are new. */
  writeTable(offset: number, bytes: IoBuffer, length: number): void {
    this.forget(offset, length);
    this.storage.write(bytes, 0, length, offset);
    this.#touched(offset + length);
  }

  /** Drops what the cache holds of those clusters, dirty or not. */
  forget(offset: number, length: number): void {
    this.cache.forget(TOP_FILE, offset, length, this.geometry.sliceSize);
  }

  /** Clusters up to `end` were written: they read as zeroes no more. */
  #touched(end: number): void {
    const { state } = this;
    state.virginFrom = Math.max(state.virginFrom, Math.ceil(end / this.geometry.clusterSize));
    state.unflushed = true;
  }

  /** `low` and `high` as an offset, where the entry is one and nothing else. */
  get offset(): number {
    return this.high * TWO_32 + this.low;
  }

  corrupt(problem: string, offset: number): ImageError {
    const { name } = this.storage;
    return new ImageError(
      'corrupt',
      'EIO',
      `${name}: ${problem} (offset 0x${offset.toString(16)})`,
      { path: name, offset },
    );
  }
}
