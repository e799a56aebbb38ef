/**
 * The two levels of tables of an image that counts no references, and the end of its file, where all that
 * is new comes to. Entries wait in the slice cache until a flush makes all durable, in order: data and new
 * tables, L2 entries, L1 entries. A crash leaves clusters that nothing refers to, at most: what an entry let
 * go of is never used again.
 */
import { alignUp, TWO_32 } from '../codec/bits.js';
import type { ImageState } from '../shared/image-state.js';
import { NO_ROOM, RANK, type Rank, type SliceCache, SLICE_SIZE } from '../shared/slice-cache.js';
import type { MutableStorage } from '../storage/storage.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { ENTRY_SIZE, TableGuard, type TwoLevels } from './table-guard.js';
import { sliceAt, TableSlices } from './table-slices.js';

/** The image's own number in its chain. */
const TOP = 0;

export interface EntryTableParts {
  readonly levels: TwoLevels;
  readonly storage: MutableStorage;
  readonly cache: SliceCache;
  readonly state: ImageState;
  /** See `metadata-map.ts`. */
  readonly metadata: SharedArrayBuffer;
  /** Called before the file grows, or an entry changes. */
  readonly beforeChange: () => void;
}

/** Every call needs the image's reservation. */
export class EntryTables {
  readonly #levels: TwoLevels;
  readonly #storage: MutableStorage;
  readonly #cache: SliceCache;
  readonly #state: ImageState;
  readonly #beforeChange: () => void;
  readonly #tables: TableSlices;
  readonly #guard: TableGuard;
  readonly #scratch = new IoBuffer(SLICE_SIZE);

  constructor({ levels, storage, cache, state, metadata, beforeChange }: EntryTableParts) {
    this.#levels = levels;
    this.#storage = storage;
    this.#cache = cache;
    this.#state = state;
    this.#beforeChange = beforeChange;
    this.#tables = new TableSlices(cache, TOP);
    this.#guard = new TableGuard({ levels, storage, tables: this.#tables, state, metadata });
  }

  /** Whole clusters at the file's end, which read as zeroes. */
  append(length: number): number {
    const { clusterSize } = this.#levels;
    const state = this.#state;
    this.#guard.checkGrowth();
    this.#beforeChange();
    const offset = state.virginFrom * clusterSize;
    // A cluster that the file lacks in part is none to QEMU.
    this.#storage.truncate(offset + length);
    state.virginFrom += length / clusterSize;
    state.countAllocated(length);
    state.compressedTail = 0;
    return offset;
  }

  /** Any number of bytes at the file's end, behind others of that kind; the file grows when they are written. */
  appendBytes(length: number): number {
    const { clusterSize } = this.#levels;
    const state = this.#state;
    this.#guard.checkGrowth();
    this.#beforeChange();
    const offset = state.compressedTail || state.virginFrom * clusterSize;
    const end = offset + length;
    state.countAllocated(length);
    state.virginFrom = Math.ceil(end / clusterSize);
    state.compressedTail = end % clusterSize === 0 ? 0 : end;
    return offset;
  }

  /** Lets the L2 entries of the clusters of [start, start + length) be those from `host` on. */
  linkRun(start: number, length: number, host: number): void {
    const { clusterSize } = this.#levels;
    for (let done = 0; done < length; done += clusterSize) this.link(start + done, host + done);
  }

  /** Lets the L2 entry of the cluster at `start` be `value`. */
  link(start: number, value: number): void {
    this.linkHalves(start, value % TWO_32, Math.floor(value / TWO_32));
  }

  /** The same of an entry's halves. */
  linkHalves(start: number, low: number, high: number): void {
    const { clusterSize, l2Bytes, l1TableOffset } = this.#levels;
    const entries = l2Bytes / ENTRY_SIZE;
    const cluster = start / clusterSize;
    const l1Index = Math.floor(cluster / entries);
    const l1Position = l1TableOffset + l1Index * ENTRY_SIZE;
    this.#guard.checkGrowth();
    this.#beforeChange();
    this.#tables.look64(l1Position, l1TableOffset);
    let table = this.#tables.high * TWO_32 + this.#tables.low;
    if (table === 0) {
      table = this.append(alignUp(l2Bytes, clusterSize));
      this.#cache.forget(TOP, table, l2Bytes, SLICE_SIZE);
      const at = sliceAt(l1TableOffset, l1Position);
      this.#setEntry(at, l1Position, table % TWO_32, Math.floor(table / TWO_32), RANK.L1);
      this.#guard.note(table);
    } else this.#guard.checkTable(table);
    const position = table + (cluster - l1Index * entries) * ENTRY_SIZE;
    this.#setEntry(sliceAt(table, position), position, low, high, RANK.L2);
  }

  /** Throws EIO where data cannot be written to a place that an entry names (`table-guard.ts`). */
  checkData(offset: number, length: number): void {
    this.#guard.checkData(offset, length);
  }

  /** Makes all durable, each before what refers to it. */
  flush(): void {
    this.#storage.flush();
    for (const rank of [RANK.L2, RANK.L1]) {
      if (this.#cache.dirtyCount(rank) === 0) continue;
      this.#cache.writeBack(rank, (_file, offset, slice) => this.#put(rank, offset, slice));
      this.#storage.flush();
    }
  }

  /**
   * Lets go of all that the L1 table names, which is durable then, and of the file behind it. Nobody else may
   * look at the image meanwhile.
   */
  dropAll(): void {
    const { clusterSize, l1TableOffset, l1Bytes } = this.#levels;
    this.flush();
    const zeroes = new IoBuffer(Math.min(l1Bytes, 1 << 20));
    for (let done = 0; done < l1Bytes; done += zeroes.length) {
      const n = Math.min(zeroes.length, l1Bytes - done);
      this.#storage.write(zeroes, 0, n, l1TableOffset + done);
    }
    const first = sliceAt(l1TableOffset, l1TableOffset);
    const end = l1TableOffset + l1Bytes;
    this.#cache.forget(TOP, first, end - first, SLICE_SIZE);
    this.#storage.flush();
    this.#storage.truncate(end);
    this.#state.virginFrom = Math.ceil(end / clusterSize);
    this.#state.compressedTail = 0;
    this.#state.bumpCompressedEpoch();
  }

  /** Beside a table, there may be anything in its slice: that stays as it is in the file. */
  #put(rank: Rank, offset: number, slice: Uint8Array): void {
    const { l2Bytes, l1TableOffset, l1Bytes, order } = this.#levels;
    this.#scratch.bytes.set(slice);
    if (order === 'big') this.#scratch.bytes.swap64();
    const isL1 = rank === RANK.L1;
    const from = isL1 ? Math.max(0, l1TableOffset - offset) : 0;
    const to = Math.min(SLICE_SIZE, isL1 ? l1TableOffset + l1Bytes - offset : l2Bytes);
    this.#storage.write(this.#scratch, from, to - from, offset + from);
  }

  #setEntry(slice: number, position: number, low: number, high: number, rank: Rank): void {
    let index = this.#cache.edit(TOP, slice, rank);
    if (index === NO_ROOM) {
      this.flush();
      index = this.#cache.edit(TOP, slice, rank);
    }
    const at = index + (position - slice) / 4;
    this.#cache.words[at] = low;
    this.#cache.words[at + 1] = high;
    this.#cache.endEdit(index);
  }
}
