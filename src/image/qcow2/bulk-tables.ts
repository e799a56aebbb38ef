/**
 * The tables of a new image that is filled in bulk. L2 tables are kept until the disk is known up to
 * their end, then each is written once; counts are written last of all, all of them, and so is the L1
 * table. Nothing orders these writes: until `showHeader` the file is no image, as it has no magic.
 *
 * For images in one file, with nothing allocated but what creating them took.
 */
import { divCeil } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import type { MutableStorage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { BulkAllocator } from './bulk-allocator.js';
import type { Geometry } from './geometry.js';
import type { Qcow2Header } from './header.js';
import { setRefcountTable } from './header-edit.js';
import { compressedEntry, copiedHigh, hostLow } from './l2.js';
import { HEADER, QCOW2_MAGIC } from './layout.js';
import { countsPerBlock, writeCount } from './refcount-compare.js';
import { subclusterMask } from './subclusters.js';
import { SUBCLUSTERS } from './geometry.js';
import { readRefcountTable } from './table-reader.js';

const ENTRY_SIZE = 8;
/** Counts are kept in parts of so many clusters. */
const COUNTS_PART = 1 << 16;

interface OpenTable {
  readonly offset: number;
  readonly entries: IoBuffer;
}

export class BulkTables {
  readonly #storage: MutableStorage;
  readonly #header: Qcow2Header;
  readonly #geometry: Geometry;
  readonly #l1: IoBuffer;
  readonly #open = new Map<number, OpenTable>();
  /** Of clusters that hold compressed data; all others count 1. By part. */
  readonly #counts = new Map<number, Uint32Array>();

  constructor(storage: MutableStorage, header: Qcow2Header) {
    this.#storage = storage;
    this.#header = header;
    this.#geometry = header.geometry;
    this.#l1 = new IoBuffer(header.l1Size * ENTRY_SIZE);
  }

  /** L2 table `l1Index` gets the cluster at `offset`. */
  addTable(l1Index: number, offset: number): void {
    const entries = new IoBuffer(this.#geometry.clusterSize);
    this.#open.set(l1Index, { offset, entries });
    putEntry(this.#l1.view, l1Index * ENTRY_SIZE, hostLow(offset), copiedHigh(offset));
  }

  /** `count` guest clusters from number `cluster` on lie at `offset`, in a row. */
  map(cluster: number, count: number, offset: number): void {
    const { clusterSize, extendedL2 } = this.#geometry;
    for (let n = 0; n < count; n++) {
      const host = offset + n * clusterSize;
      const { view, at } = this.#entryOf(cluster + n);
      putEntry(view, at, hostLow(host), copiedHigh(host));
      if (extendedL2) view.setUint32(at + ENTRY_SIZE + 4, subclusterMask(0, SUBCLUSTERS));
    }
  }

  /** Guest cluster `cluster` lies compressed at `offset`, in `length` bytes. */
  mapCompressed(cluster: number, offset: number, length: number): void {
    const { clusterSize } = this.#geometry;
    const entry = compressedEntry(this.#geometry, offset, length);
    if (entry === null) {
      throw new ImageError(
        'invalid',
        'EFBIG',
        `${this.#storage.name}: no place for compressed data`,
      );
    }
    const { view, at } = this.#entryOf(cluster);
    putEntry(view, at, entry.low, entry.high);
    const last = Math.floor((offset + length - 1) / clusterSize);
    for (let host = Math.floor(offset / clusterSize); host <= last; host++) this.#count(host);
  }

  /** The disk is known below that guest offset: tables that end there are written. */
  writeBelow(offset: number): void {
    for (const [l1Index, table] of this.#open) {
      if ((l1Index + 1) * this.#geometry.l2Coverage <= offset) this.#writeTable(l1Index, table);
    }
  }

  /** Writes what is left: the rest of the tables, the counts and the L1 table; sets the file's size. */
  finish(allocator: BulkAllocator): void {
    for (const [l1Index, table] of this.#open) this.#writeTable(l1Index, table);
    this.#writeCounts(allocator);
    this.#storage.truncate(allocator.next);
    if (this.#l1.length > 0) {
      this.#storage.write(this.#l1, 0, this.#l1.length, this.#header.l1TableOffset);
    }
  }

  #entryOf(cluster: number): { view: DataView; at: number } {
    const { l2Entries, l2EntrySize } = this.#geometry;
    const l1Index = Math.floor(cluster / l2Entries);
    const table = this.#open.get(l1Index);
    if (table === undefined) throw new RangeError(`no L2 table for cluster ${cluster}`);
    return { view: table.entries.view, at: (cluster % l2Entries) * l2EntrySize };
  }

  #writeTable(l1Index: number, { offset, entries }: OpenTable): void {
    this.#storage.write(entries, 0, entries.length, offset);
    this.#open.delete(l1Index);
  }

  #count(cluster: number): void {
    const part = Math.floor(cluster / COUNTS_PART);
    const counts = this.#counts.get(part) ?? new Uint32Array(COUNTS_PART);
    this.#counts.set(part, counts);
    counts[cluster % COUNTS_PART]!++;
  }

  /** References to a cluster below the file's end. */
  #countOf(cluster: number): number {
    const counts = this.#counts.get(Math.floor(cluster / COUNTS_PART));
    return counts?.[cluster % COUNTS_PART] || 1;
  }

  #writeCounts(allocator: BulkAllocator): void {
    const { clusterSize } = this.#geometry;
    const { refcountTableOffset, refcountTableClusters } = this.#header;
    const known = readRefcountTable(this.#storage, this.#header).filter((offset) => offset !== 0);
    const { blocks, tableClusters } = this.#planCounts(allocator.next / clusterSize, known.length);
    const offsets = [...known];
    const tableOffset =
      tableClusters === 0 ? refcountTableOffset : allocator.clusters(tableClusters);
    while (offsets.length < blocks) offsets.push(allocator.clusters(1));
    const end = allocator.next / clusterSize;
    // The first table's clusters are free where another one takes its place.
    const freeFrom = refcountTableOffset / clusterSize;
    const freeTo = tableClusters === 0 ? freeFrom : freeFrom + refcountTableClusters;
    const isFree = (cluster: number) => cluster >= freeFrom && cluster < freeTo;
    for (const [index, offset] of offsets.entries()) this.#writeBlock(index, offset, end, isFree);
    const table = new IoBuffer((tableClusters || refcountTableClusters) * clusterSize);
    for (const [n, offset] of offsets.entries()) {
      table.view.setBigUint64(n * ENTRY_SIZE, BigInt(offset));
    }
    this.#storage.write(table, 0, table.length, tableOffset);
    if (tableClusters > 0) {
      setRefcountTable(this.#storage, {
        refcountTableOffset: tableOffset,
        refcountTableClusters: tableClusters,
      });
    }
  }

  /** Blocks in all for `used` clusters and for what they need themselves; clusters of a larger table. */
  #planCounts(used: number, known: number): { blocks: number; tableClusters: number } {
    const { clusterSize } = this.#geometry;
    const perBlock = countsPerBlock(this.#geometry);
    const room = (this.#header.refcountTableClusters * clusterSize) / ENTRY_SIZE;
    let blocks = known;
    let tableClusters = 0;
    for (;;) {
      const needed = divCeil(used + tableClusters + blocks - known, perBlock);
      const larger = needed <= room ? 0 : divCeil(needed * ENTRY_SIZE, clusterSize);
      if (needed <= blocks && larger <= tableClusters) return { blocks, tableClusters };
      // Both only grow, and by ever less.
      blocks = Math.max(blocks, needed);
      tableClusters = Math.max(tableClusters, larger);
    }
  }

  #writeBlock(
    index: number,
    offset: number,
    end: number,
    isFree: (cluster: number) => boolean,
  ): void {
    const { clusterSize, refcountBits } = this.#geometry;
    const perBlock = countsPerBlock(this.#geometry);
    const block = new IoBuffer(clusterSize);
    const first = index * perBlock;
    for (let n = 0; n < perBlock && first + n < end; n++) {
      const cluster = first + n;
      if (!isFree(cluster)) writeCount(block.view, refcountBits, n, this.#countOf(cluster));
    }
    this.#storage.write(block, 0, clusterSize, offset);
  }
}

function putEntry(view: DataView, at: number, low: number, high: number): void {
  view.setUint32(at, high);
  view.setUint32(at + 4, low);
}

/** Makes an image that was unfinished one: last of all. */
export function showHeader(storage: MutableStorage): void {
  const buffer = new IoBuffer(HEADER.size);
  HEADER.write(buffer.view, 0, { magic: QCOW2_MAGIC });
  storage.write(buffer, HEADER.offsets.magic, HEADER.fields.magic.size, 0);
}
