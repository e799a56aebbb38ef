/**
 * The guard against damage that is there already in an image that counts no references: data must not come
 * over the header, the L1 table or an L2 table, nor anything new to where an entry leads that was cut off with
 * the file's end. On a hit writing ends; the formats have no mark for it.
 *
 * Places of L2 tables are noted from one look at the L1 table, before the first write. The entries of
 * all of them are looked at once, before the file first grows or an entry changes.
 */
import { alignDown, alignUp, TWO_32 } from '../codec/bits.js';
import { ImageError } from '../errors.js';
import type { ImageState } from '../shared/image-state.js';
import type { Storage } from '../storage/storage.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { MetadataMap } from './metadata-map.js';
import type { TableSlices } from './table-slices.js';
import type { ByteRange } from './writer.js';

export const ENTRY_SIZE = 8;
/** Bytes of the units that are noted, at least. */
const LEAST_UNIT = 4096;
/** Bytes of a table that are looked at at once. */
const CHUNK_SIZE = 1 << 20;

/** Sizes and offsets are bytes. */
export interface TwoLevels {
  readonly clusterSize: number;
  /** Of each L2 table. */
  readonly l2Bytes: number;
  readonly l1TableOffset: number;
  readonly l1Bytes: number;
  /** The header and what else lies nowhere in the tables. */
  readonly headers: readonly ByteRange[];
  readonly order: 'big' | 'little';
  /** Where that ends which the halves of an L2 entry name; 0 for nothing. */
  readonly endOf: (low: number, high: number) => number;
}

export interface TableGuardParts {
  readonly levels: TwoLevels;
  readonly storage: Storage;
  readonly tables: TableSlices;
  readonly state: ImageState;
  /** See `metadata-map.ts`. */
  readonly metadata: SharedArrayBuffer;
}

/** Every call needs the image's reservation. All throw EIO. */
export class TableGuard {
  readonly #levels: TwoLevels;
  readonly #storage: Storage;
  readonly #tables: TableSlices;
  readonly #state: ImageState;
  readonly #map: MetadataMap;
  readonly #unit: number;

  constructor({ levels, storage, tables, state, metadata }: TableGuardParts) {
    this.#levels = levels;
    this.#storage = storage;
    this.#tables = tables;
    this.#state = state;
    this.#map = new MetadataMap(metadata);
    this.#unit = Math.max(levels.clusterSize, LEAST_UNIT);
  }

  /** Throws where data cannot be written to a place that an entry names. */
  checkData(offset: number, length: number): void {
    this.#gather();
    this.#checkEnd('data', offset, length);
    this.#checkFixed(offset, length);
    const last = Math.floor((offset + length - 1) / this.#unit);
    for (let unit = Math.floor(offset / this.#unit); unit <= last; unit++) {
      if (!this.#map.has(unit)) continue;
      this.#checkTables(offset, length);
      return;
    }
  }

  /** Throws where entries of the L2 table at `offset` cannot be changed. */
  checkTable(offset: number): void {
    this.#gather();
    this.#checkEnd('L2 table', offset, this.#levels.l2Bytes);
    if (offset % this.#levels.clusterSize !== 0) throw this.#unwritable('L2 table', offset);
  }

  /** Notes a new L2 table. */
  note(table: number): void {
    const last = Math.floor((table + this.#levels.l2Bytes - 1) / this.#unit);
    for (let unit = Math.floor(table / this.#unit); unit <= last; unit++) this.#map.add(unit);
  }

  /** Throws where the file cannot grow: what comes to its end would be an old entry's, too. */
  checkGrowth(): void {
    const state = this.#state;
    if (state.endKnown) return;
    this.#gather();
    const { l2Bytes } = this.#levels;
    const end = state.virginFrom * this.#levels.clusterSize;
    const chunk = new IoBuffer(Math.min(CHUNK_SIZE, l2Bytes));
    const found: [table: number, position: number][] = [];
    this.#eachOldTable((table, position) => found.push([table, position]));
    // In the order of the file: that is fastest.
    for (const [table, position] of found.sort(([a], [b]) => a - b)) {
      if (table + l2Bytes > end) throw this.#cut(position);
      for (let done = 0; done < l2Bytes; done += chunk.length) {
        this.#checkEntries(table + done, Math.min(chunk.length, l2Bytes - done), chunk, end);
      }
    }
    state.endKnown = true;
  }

  #checkEntries(offset: number, length: number, chunk: IoBuffer, end: number): void {
    const { order, endOf } = this.#levels;
    const { view } = chunk;
    // The file's last cluster may be there in part.
    const there = this.#storage.read(chunk, 0, length, offset);
    const isLittle = order === 'little';
    for (let at = 0; at + ENTRY_SIZE <= there; at += ENTRY_SIZE) {
      const low = view.getUint32(isLittle ? at : at + 4, isLittle);
      const high = view.getUint32(isLittle ? at + 4 : at, isLittle);
      if (endOf(low, high) > end) throw this.#cut(offset + at);
    }
  }

  /** Before the first write. Two tables over each other: what is written to one would destroy the other. */
  #gather(): void {
    if (this.#state.gathered) return;
    const { l2Bytes } = this.#levels;
    const found: number[] = [];
    this.#eachOldTable((table) => found.push(table));
    const sorted = Float64Array.from(found).sort();
    for (const [at, table] of sorted.entries()) {
      if (at > 0 && table < sorted[at - 1]! + l2Bytes) {
        throw this.#end('two tables lie over each other', table);
      }
      this.#checkFixed(table, l2Bytes);
      this.note(table);
    }
    this.#state.gathered = true;
  }

  #checkFixed(offset: number, length: number): void {
    const { headers, l1TableOffset, l1Bytes } = this.#levels;
    const end = offset + length;
    for (const header of headers) {
      if (offset < header.offset + header.length && end > header.offset) {
        throw this.#overwritten('header', offset);
      }
    }
    if (offset < l1TableOffset + l1Bytes && end > l1TableOffset) {
      throw this.#overwritten('L1 table', offset);
    }
  }

  #checkTables(offset: number, length: number): void {
    const { l2Bytes } = this.#levels;
    this.#eachTable((table) => {
      if (offset < table + l2Bytes && offset + length > table) {
        throw this.#overwritten('L2 table', offset);
      }
    });
  }

  #checkEnd(what: string, offset: number, length: number): void {
    // An offset that is 2^53 and above is none.
    if (offset + length <= this.#state.virginFrom * this.#levels.clusterSize) return;
    throw this.#unwritable(what, offset);
  }

  /**
   * The same of those that the file had when it was opened, and maybe of others: what is a hole of the file, most of a
   * large disk's table, is passed over.
   */
  #eachOldTable(visit: (table: number, position: number) => void): void {
    const { l1TableOffset, l1Bytes } = this.#levels;
    const end = l1TableOffset + l1Bytes;
    for (let at = l1TableOffset; at < end; ) {
      const from = this.#storage.nextData(at, end);
      const to = this.#storage.nextHole(from, end);
      at = Math.min(end, alignUp(Math.max(to, from + 1), ENTRY_SIZE));
      if (from < end) this.#eachTable(visit, alignDown(from, ENTRY_SIZE), at);
    }
  }

  /** Calls `visit` with where each L2 table lies, and its L1 entry; of the entries in [from, end). */
  #eachTable(
    visit: (table: number, position: number) => void,
    from = this.#levels.l1TableOffset,
    end = from + this.#levels.l1Bytes,
  ): void {
    const { l1TableOffset } = this.#levels;
    const tables = this.#tables;
    for (let at = from; at < end; at += ENTRY_SIZE) {
      tables.look64(at, l1TableOffset);
      const table = tables.high * TWO_32 + tables.low;
      if (table !== 0) visit(table, at);
    }
  }

  #overwritten(name: string, offset: number): ImageError {
    return this.#end(`write would overwrite metadata (${name})`, offset);
  }

  #cut(position: number): ImageError {
    return this.#end('an entry leads behind the end of the file', position);
  }

  /** Ends all writing, and answers the error to throw. */
  #end(problem: string, offset: number): ImageError {
    const error = this.#error(`${problem}: writing ends`, offset);
    this.#state.fail(error.errno);
    return error;
  }

  #unwritable(what: string, offset: number): ImageError {
    return this.#error(`${what} cannot be written to`, offset);
  }

  #error(problem: string, offset: number): ImageError {
    const { name } = this.#storage;
    const message = `${name}: ${problem} (offset 0x${offset.toString(16)})`;
    return new ImageError('corrupt', 'EIO', message, { path: name, offset });
  }
}
