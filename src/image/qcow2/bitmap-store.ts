/**
 * Writing bitmaps. What changes is written elsewhere: new clusters of bits, a new table for each bitmap
 * that changes, a new directory. All of it is durable before the header names the directory, in one
 * write with the autoclear bit (`header-rewrite.ts`); what was there before is let go of after that. So
 * a crash leaves the old bitmaps or the new ones, and clusters that leak. Flags alone are changed in
 * place: each lies in one sector.
 *
 * With the reservation, alone.
 */
import { setBits } from '../../codec/bit-runs.js';
import { ImageError } from '../../errors.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Allocator } from './allocator.js';
import {
  type BitmapEntry,
  changedBitmapEntry,
  checkDirectory,
  directoryOf,
  readEntries,
} from './bitmap-entries.js';
import { type Bitmap, bitmapClusters, readBitmaps } from './bitmaps.js';
import type { BitmapsExtension } from './extensions.js';
import type { Flusher } from './flush.js';
import { type Qcow2Header, readHeader } from './header.js';
import { setBitmapsExtension } from './header-rewrite.js';
import { BITMAP_DIRECTORY_ENTRY } from './layout.js';
import {
  type BitsPlace,
  type DirtySource,
  readPlaces,
  type StoredBitmap,
} from './stored-bitmap.js';
import type { Place, Tables } from './tables.js';

const TABLE_ENTRY_SIZE = 8;

/** The bits that a bitmap is to have. */
export interface NewBits {
  /** Bytes of the disk. */
  readonly size: number;
  readonly granularity: number;
  /** The bits that it has, of the same granularity; null: none is set. */
  readonly base: StoredBitmap | null;
  /** Behind that byte of the disk, what `base` says is no longer true; Infinity where it all is. */
  readonly baseEnd: number;
  /** What is dirty besides. */
  readonly added: readonly DirtySource[];
}

/** A bitmap as it is to be. */
export interface BitmapPlan {
  readonly entry: BitmapEntry;
  readonly flags: number;
  /** Null: its table stays. */
  readonly bits: NewBits | null;
}

/** A bitmap as it is, and its entry's bytes. */
export interface ListedBitmap {
  readonly bitmap: Bitmap;
  readonly entry: BitmapEntry;
}

/** Clusters that are written and named by nothing yet. */
interface Fresh {
  readonly offset: number;
  readonly clusters: number;
}

/** Where a directory lies. */
export function placeOf(directory: BitmapsExtension | null): Place {
  if (directory === null) return { offset: 0, size: 0 };
  return { offset: directory.bitmapDirectoryOffset, size: directory.bitmapDirectorySize };
}

export class BitmapStore {
  readonly #tables: Tables;
  readonly #allocator: Allocator;
  readonly #flusher: Flusher;
  readonly #scratch: IoBuffer;

  constructor(tables: Tables, allocator: Allocator, flusher: Flusher) {
    this.#tables = tables;
    this.#allocator = allocator;
    this.#flusher = flusher;
    this.#scratch = new IoBuffer(tables.geometry.clusterSize);
  }

  /** The bitmaps of the image as they are in the file. */
  list(): ListedBitmap[] {
    const header = this.#header();
    const { bitmaps } = header.extensions;
    const known = readBitmaps(this.#tables.storage, header);
    if (bitmaps === null || known.length === 0) return [];
    const entries = readEntries(this.#tables.storage, bitmaps);
    return known.map((bitmap, index) => ({ bitmap, entry: entries[index]! }));
  }

  /** Sets flags of bitmaps that are there. Durable when it returns. */
  setFlags(changes: readonly (readonly [bitmap: Bitmap, flags: number])[]): void {
    if (changes.length === 0) return;
    const { storage } = this.#tables;
    const { bitmapDirectoryOffset } = this.#header().extensions.bitmaps!;
    const { offsets, fields } = BITMAP_DIRECTORY_ENTRY;
    for (const [{ entryOffset }, flags] of changes) {
      this.#scratch.view.setUint32(0, flags);
      const at = bitmapDirectoryOffset + entryOffset + offsets.flags;
      storage.write(this.#scratch, 0, fields.flags.size, at);
    }
    storage.flush();
  }

  /** Makes these the bitmaps of the image, in that order. Durable when it returns. */
  replace(plans: readonly BitmapPlan[]): void {
    const old = this.#clustersOf(this.#header());
    checkDirectory(plans.map(({ entry }) => entry));
    this.#flusher.flushCounts();
    const fresh: Fresh[] = [];
    let refused = true;
    try {
      const directory = this.#writeAll(plans, fresh);
      this.#flusher.flushCounts();
      try {
        setBitmapsExtension(this.#tables.storage, directory);
      } catch (error) {
        refused = error instanceof ImageError;
        throw error;
      }
    } catch (error) {
      // Once the header may name them, they stay.
      if (refused && this.#tables.state.failed === 0) {
        for (const { offset, clusters } of fresh) this.#allocator.undoTable(offset, clusters);
      }
      throw error;
    }
    const header = this.#header();
    this.#tables.bitmapDirectory = placeOf(header.extensions.bitmaps);
    const kept = this.#clustersOf(header);
    const { clusterSize } = this.#tables.geometry;
    for (const cluster of old) {
      if (!kept.has(cluster)) this.#allocator.freeTable(cluster * clusterSize, clusterSize);
    }
    this.#flusher.flushCounts();
  }

  /** Writes tables and the directory; null where there is nothing to have one. */
  #writeAll(plans: readonly BitmapPlan[], fresh: Fresh[]): BitmapsExtension | null {
    if (plans.length === 0) return null;
    const entries = plans.map(({ entry, flags, bits }) =>
      changedBitmapEntry(entry, bits === null ? { flags } : { flags, ...this.#write(bits, fresh) }),
    );
    const directory = directoryOf(entries);
    return {
      nbBitmaps: entries.length,
      bitmapDirectorySize: directory.length,
      bitmapDirectoryOffset: this.#writeTable(directory, fresh),
    };
  }

  /** Writes a bitmap's bits, where they are other ones, and its table. */
  #write(bits: NewBits, fresh: Fresh[]): { bitmapTableOffset: number; bitmapTableSize: number } {
    const { clusterSize } = this.#tables.geometry;
    // As QEMU, which refuses a bitmap without a table.
    const count = Math.max(1, bitmapClusters(bits.size, bits.granularity, clusterSize));
    const table = new IoBuffer(count * TABLE_ENTRY_SIZE);
    for (let index = 0; index < count; index++) {
      const place = this.#placeOf(bits, index, fresh);
      const entry = place === 'zeroes' ? 0n : place === 'ones' ? 1n : BigInt(place);
      table.view.setBigUint64(index * TABLE_ENTRY_SIZE, entry);
    }
    return { bitmapTableOffset: this.#writeTable(table, fresh), bitmapTableSize: count };
  }

  /** Where the bits of one table entry are: the old ones, or new ones, written here. */
  #placeOf(bits: NewBits, index: number, fresh: Fresh[]): BitsPlace {
    const { granularity, base, baseEnd, added, size } = bits;
    const { clusterSize } = this.#tables.geometry;
    const coverage = clusterSize * 8 * granularity;
    const from = index * coverage;
    const to = Math.min(from + coverage, size);
    const old = base?.places[index] ?? 'zeroes';
    let isSet = false;
    const { bytes } = this.#scratch;
    const set = (start: number, end: number): void => {
      if (!isSet) bytes.fill(0);
      isSet = true;
      const first = Math.floor((Math.max(start, from) - from) / granularity);
      setBits(bytes, first, Math.ceil((Math.min(end, to) - from) / granularity));
    };
    for (const source of added) source.forEachDirty(from, to, set);
    if (!isSet && (old === 'zeroes' || from + coverage <= baseEnd)) return old;
    base?.forEachDirty(from, Math.min(to, baseEnd), set);
    if (!isSet) return 'zeroes';
    const offset = this.#allocator.allocateTable();
    fresh.push({ offset, clusters: 1 });
    this.#tables.writeTable(offset, this.#scratch, clusterSize);
    return offset;
  }

  /** Writes a table to clusters of its own. */
  #writeTable(table: IoBuffer, fresh: Fresh[]): number {
    const { clusterSize } = this.#tables.geometry;
    const clusters = Math.ceil(table.length / clusterSize);
    const offset = this.#allocator.allocateTable(clusters);
    fresh.push({ offset, clusters });
    this.#tables.writeTable(offset, table, table.length);
    return offset;
  }

  /** Indexes of the clusters that bitmaps have: directory, tables and bits. */
  #clustersOf(header: Qcow2Header): Set<number> {
    const { clusterSize } = header.geometry;
    const found = new Set<number>();
    const add = (offset: number, size: number): void => {
      const end = Math.ceil((offset + size) / clusterSize);
      for (let cluster = offset / clusterSize; cluster < end; cluster++) found.add(cluster);
    };
    const bitmaps = readBitmaps(this.#tables.storage, header);
    const { bitmaps: directory } = header.extensions;
    if (bitmaps.length === 0 || directory === null) return found;
    add(directory.bitmapDirectoryOffset, directory.bitmapDirectorySize);
    for (const bitmap of bitmaps) {
      add(bitmap.tableOffset, bitmap.tableSize * TABLE_ENTRY_SIZE);
      for (const place of this.#placesOf(bitmap)) {
        if (typeof place === 'number') add(place, clusterSize);
      }
    }
    return found;
  }

  /** None of a table that is damaged: its clusters leak. */
  #placesOf(bitmap: Bitmap): readonly BitsPlace[] {
    const { geometry, storage } = this.#tables;
    try {
      return readPlaces(storage, bitmap, geometry.clusterSize);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      return [];
    }
  }

  #header(): Qcow2Header {
    return readHeader(this.#tables.storage, 'open');
  }
}
