/**
 * Refcounts of another width. All counts are written anew, into blocks and a table that are allocated
 * as any cluster is, and one write of the header names them and their width. For who holds the image
 * alone; whoever counts by the old width must not go on after it.
 *
 * The new blocks count the old structures as free already. A crash before the header is durable finds
 * the old ones whole, and leaks the clusters of the new; after it, the new ones, which are exact.
 */
import { ImageError } from '../../errors.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Allocator } from './allocator.js';
import type { Flusher } from './flush.js';
import { setRefcounts } from './header-edit.js';
import { LIMIT } from './layout.js';
import { largestCount, readCount, writeCount } from './refcount-compare.js';
import { readRefcountTable, TableReader } from './table-reader.js';
import type { Tables } from './tables.js';

const ENTRY_SIZE = 8;

/** What is being made. */
interface NewRefcounts {
  readonly bits: number;
  /** Clusters that a block counts. */
  readonly perBlock: number;
  /** Offsets of the blocks by their index. */
  readonly blocks: Map<number, number>;
  table: { offset: number; clusters: number };
}

export class RefcountWidth {
  readonly #tables: Tables;
  readonly #allocator: Allocator;
  readonly #flusher: Flusher;
  readonly #punches: boolean;
  readonly #reader: TableReader;
  readonly #block: IoBuffer;
  /** Offset of the old block that is in the reader's buffer. */
  #loaded = 0;

  /** `punches`: whether freed clusters become holes of the host's file. */
  constructor(tables: Tables, allocator: Allocator, flusher: Flusher, punches: boolean) {
    this.#punches = punches;
    this.#tables = tables;
    this.#allocator = allocator;
    this.#flusher = flusher;
    this.#reader = new TableReader(tables.storage);
    this.#block = new IoBuffer(tables.geometry.clusterSize);
  }

  /**
   * Changes the width to `bits`, a power of two from 1 to 64 that is not the present one. Throws ENOTSUP
   * where a count does not fit: nothing is changed then. Answers how far it is, from 0 to 1.
   */
  *change(bits: number): Generator<number> {
    const { clusterSize } = this.#tables.geometry;
    const made: NewRefcounts = {
      bits,
      perBlock: (clusterSize * 8) / bits,
      blocks: new Map(),
      table: { offset: 0, clusters: 0 },
    };
    let switched = false;
    try {
      yield* this.#allocate(made);
      yield* this.#write(made);
      this.#tables.storage.flush();
      switched = true;
      this.#switchTo(made);
    } finally {
      if (!switched && this.#tables.state.failed === 0) this.#undo(made);
    }
  }

  /** Throws where a count of the file does not fit that width. */
  check(bits: number): void {
    const refuseTooLarge = (cluster: number, count: number) => {
      if (count > largestCount(bits)) throw this.#tooLarge(bits, cluster, count);
    };
    for (const _ of this.#eachCount(refuseTooLarge));
  }

  /** Allocates until all clusters that are counted, the new ones too, have a new block. */
  *#allocate(made: NewRefcounts): Generator<number> {
    this.#flusher.flushCounts();
    for (let pass = 0; ; pass++) {
      const missing = new Set<number>();
      let last = 0;
      for (const fraction of this.#eachCount((cluster, count) => {
        if (count > largestCount(made.bits)) throw this.#tooLarge(made.bits, cluster, count);
        const block = Math.floor(cluster / made.perBlock);
        last = Math.max(last, block);
        if (!made.blocks.has(block)) missing.add(block);
      })) {
        yield pass === 0 ? fraction / 2 : 0.5;
      }
      for (const block of missing) made.blocks.set(block, this.#allocator.allocateTable());
      const grown = this.#allocateNames(made, last + 1);
      if (missing.size === 0 && !grown) return;
      this.#flusher.flushCounts();
    }
  }

  /** Makes the new table name that many blocks. False where it does already. */
  #allocateNames(made: NewRefcounts, entries: number): boolean {
    const { clusterSize } = this.#tables.geometry;
    const clusters = Math.ceil((entries * ENTRY_SIZE) / clusterSize);
    const { table } = made;
    if (clusters <= table.clusters) return false;
    if (clusters * clusterSize > LIMIT.MAX_REFCOUNT_TABLE_SIZE) {
      throw new ImageError('invalid', 'EFBIG', 'Refcount table too large', {
        limit: `${clusters * clusterSize} bytes, at most ${LIMIT.MAX_REFCOUNT_TABLE_SIZE}`,
      });
    }
    if (table.clusters > 0) this.#allocator.undoTable(table.offset, table.clusters);
    made.table = { offset: 0, clusters: 0 };
    made.table = { offset: this.#allocator.allocateTable(clusters), clusters };
    return true;
  }

  /** Writes the new blocks and their table. */
  *#write({ bits, perBlock, blocks, table }: NewRefcounts): Generator<number> {
    const { clusterSize } = this.#tables.geometry;
    const old = this.#oldClusters();
    const names = new IoBuffer(table.clusters * clusterSize);
    const offsets = this.#oldBlocks();
    let done = 0;
    for (const [index, offset] of blocks) {
      names.view.setBigUint64(index * ENTRY_SIZE, BigInt(offset));
      this.#block.bytes.fill(0);
      for (let n = 0; n < perBlock; n++) {
        const cluster = index * perBlock + n;
        const count = this.#oldCount(offsets, cluster);
        if (count !== 0 && !old.has(cluster)) writeCount(this.#block.view, bits, n, count);
      }
      this.#tables.writeTable(offset, this.#block, clusterSize);
      done++;
      yield 0.5 + done / blocks.size / 2;
    }
    this.#tables.writeTable(table.offset, names, names.length);
  }

  #switchTo({ bits, table }: NewRefcounts): void {
    const { geometry, storage } = this.#tables;
    const old = this.#oldClusters();
    setRefcounts(storage, {
      refcountTableOffset: table.offset,
      refcountTableClusters: table.clusters,
      refcountOrder: Math.log2(bits),
    });
    storage.flush();
    if (!this.#punches) return;
    for (const cluster of old) {
      storage.punch(cluster * geometry.clusterSize, geometry.clusterSize);
    }
  }

  #undo({ blocks, table }: NewRefcounts): void {
    for (const offset of blocks.values()) this.#allocator.undoTable(offset, 1);
    if (table.clusters > 0) this.#allocator.undoTable(table.offset, table.clusters);
    this.#flusher.flushCounts();
  }

  /** The clusters that the present structures take. */
  #oldClusters(): Set<number> {
    const { geometry, state } = this.#tables;
    const first = state.refcountTableOffset / geometry.clusterSize;
    const table = Array.from({ length: state.refcountTableClusters }, (_, n) => first + n);
    const blocks = this.#oldBlocks().filter((offset) => offset !== 0);
    return new Set([...table, ...Array.from(blocks, (offset) => offset / geometry.clusterSize)]);
  }

  /** Offsets of the present blocks by their index, 0 where there is none; as they are in the file. */
  #oldBlocks(): Float64Array {
    const { geometry, state, storage } = this.#tables;
    const { refcountTableOffset, refcountTableClusters } = state;
    return readRefcountTable(storage, { geometry, refcountTableOffset, refcountTableClusters });
  }

  /** Shows each count that is not 0, as it is in the file. */
  *#eachCount(visit: (cluster: number, count: number) => void): Generator<number> {
    const { clusterSize, refcountBits } = this.#tables.geometry;
    const perBlock = (clusterSize * 8) / refcountBits;
    const offsets = this.#oldBlocks();
    for (const [index, offset] of offsets.entries()) {
      if (offset === 0) continue;
      this.#load(offset);
      for (let n = 0; n < perBlock; n++) {
        const count = readCount(this.#reader.buffer.view, refcountBits, n);
        if (count !== 0) visit(index * perBlock + n, count);
      }
      yield index / offsets.length;
    }
    this.#loaded = 0;
  }

  #oldCount(offsets: Float64Array, cluster: number): number {
    const { clusterSize, refcountBits } = this.#tables.geometry;
    const perBlock = (clusterSize * 8) / refcountBits;
    const offset = offsets[Math.floor(cluster / perBlock)] ?? 0;
    if (offset === 0) return 0;
    this.#load(offset);
    return readCount(this.#reader.buffer.view, refcountBits, cluster % perBlock);
  }

  #load(offset: number): void {
    if (this.#loaded === offset) return;
    this.#loaded = 0;
    const { clusterSize } = this.#tables.geometry;
    this.#reader.forEachBlock(offset, clusterSize, (length) => {
      this.#reader.buffer.bytes.fill(0, length, clusterSize);
    });
    this.#loaded = offset;
  }

  #tooLarge(bits: number, cluster: number, count: number): ImageError {
    const offset = cluster * this.#tables.geometry.clusterSize;
    return new ImageError(
      'unsupported',
      'ENOTSUP',
      `Cannot decrease refcount entry width to ${bits} bits: Cluster at offset ` +
        `0x${offset.toString(16)} has a refcount of ${count}`,
    );
  }
}
