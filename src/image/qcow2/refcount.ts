/**
 * Reference counts of host clusters: two levels, a table of blocks, with counts of 1 to 64 bits. A
 * cluster without a block has the count 0.
 *
 * A new block is the first cluster that it counts itself. It is in the file before the table names
 * it (ranks of the slice cache); a crash before that leaves nothing.
 */
import { alignDown, TWO_32 } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import { RANK } from '../../shared/slice-cache.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import { setRefcountTable } from './header-edit.js';
import { LIMIT } from './layout.js';
import type { OverlapGuard } from './overlap.js';
import { countsPerBlock, largestCount, writeCount } from './refcount-compare.js';
import type { Tables } from './tables.js';

const ENTRY_SIZE = 8;

/** A run of clusters. */
export interface Run {
  first: number;
  count: number;
}

export class Refcounts {
  readonly #tables: Tables;
  readonly #guard: OverlapGuard;
  readonly #bits: number;
  readonly #perBlock: number;
  readonly #perSlice: number;
  /** The largest count that is reached by counting; numbers are exact up to 2^53 - 1. */
  readonly max: number;
  /** Clusters that the storage has room for: Infinity but for block devices. */
  readonly #limit: number;

  constructor(tables: Tables, guard: OverlapGuard, limit: number) {
    const { refcountBits, sliceSize } = tables.geometry;
    this.#tables = tables;
    this.#guard = guard;
    this.#bits = refcountBits;
    this.#perBlock = countsPerBlock(tables.geometry);
    this.#perSlice = (sliceSize * 8) / refcountBits;
    this.max = Math.min(largestCount(refcountBits), Number.MAX_SAFE_INTEGER);
    this.#limit = limit;
  }

  get(cluster: number): number {
    const slice = this.#sliceOf(cluster);
    if (slice < 0) return 0;
    const { cache } = this.#tables;
    const entry = cluster % this.#perSlice;
    let index: number;
    let sequence: number;
    let count: number;
    do {
      index = cache.find(0, slice);
      sequence = cache.sequence;
      count = this.#load(index, entry);
    } while (!cache.unchanged(index, sequence));
    return count;
  }

  /**
   * Adds `delta` to the count of each of `count` clusters. Throws where one would leave its range:
   * EINVAL above, corrupt below 0; those before it are changed then.
   */
  add(first: number, count: number, delta: number): void {
    const end = first + count;
    for (let cluster = first; cluster < end; ) {
      const stop = Math.min(end, alignDown(cluster, this.#perSlice) + this.#perSlice);
      const slice = this.#sliceOf(cluster);
      if (slice < 0) throw this.#underflow(cluster);
      const index = this.#tables.edit(slice, RANK.REFCOUNT_BLOCK);
      let failed: ImageError | undefined;
      for (; cluster < stop; cluster++) {
        const old = this.#load(index, cluster % this.#perSlice);
        if (old >= Number.MAX_SAFE_INTEGER) {
          if (this.#addExactly(index, cluster % this.#perSlice, delta)) continue;
          failed = this.#overflow(cluster);
          break;
        }
        const value = old + delta;
        if (value < 0) failed = this.#underflow(cluster);
        else if (value > this.max) failed = this.#overflow(cluster);
        if (failed !== undefined) break;
        this.#store(index, cluster % this.#perSlice, value);
      }
      this.#tables.cache.endEdit(index);
      if (failed !== undefined) throw failed;
    }
  }

  /** The first run of clusters of count 0 at or after `from`, `most` long at most. */
  findFree(from: number, most: number): Run {
    for (let cluster = from; ; ) {
      if (cluster >= this.#limit) throw this.#full();
      const slice = this.#sliceOf(cluster);
      if (slice < 0) {
        // Nothing is counted there: the block takes the first cluster for itself.
        this.#createBlock(cluster);
        continue;
      }
      const found = this.#scan(slice, cluster, most);
      if (found.count > 0) {
        found.count = Math.min(found.count, this.#limit - found.first);
        if (found.count <= 0) throw this.#full();
        return found;
      }
      cluster = alignDown(cluster, this.#perSlice) + this.#perSlice;
    }
  }

  /** A run of exactly `count` free clusters at or after `from`; its blocks are there. */
  findFreeRun(from: number, count: number): Run {
    // A new block lies in the range that it counts, and would break every run as long as that.
    if (count >= this.#perBlock) return this.#makeLongRun(count);
    let first = from;
    let length = 0;
    while (length < count) {
      const found = this.findFree(first + length, count - length);
      if (found.first !== first + length) {
        first = found.first;
        length = 0;
      }
      length += found.count;
    }
    return { first, count };
  }

  /** The same behind all that is counted, with the new blocks in front of it. */
  #makeLongRun(count: number): Run {
    const { clusterSize } = this.#tables.geometry;
    let blocks = 1;
    for (let last = 0; last !== blocks; ) {
      last = blocks;
      blocks = Math.ceil((blocks + count) / this.#perBlock);
    }
    const entries = this.#tableEntries;
    let firstBlock = entries;
    while (firstBlock > 0 && this.#sliceOf((firstBlock - 1) * this.#perBlock) < 0) firstBlock--;
    if (firstBlock + blocks > entries) {
      this.#growTable(entries, blocks + 1);
      return this.#makeLongRun(count);
    }
    const start = firstBlock * this.#perBlock;
    if (start + blocks + count > this.#limit) throw this.#full();
    this.#guard.claim(start, blocks);
    for (let block = 0; block < blocks; block++) {
      const offset = (start + block) * clusterSize;
      const counted = Math.max(0, Math.min(this.#perBlock, blocks - block * this.#perBlock));
      this.#writeFullBlock(offset, counted);
      this.#nameBlock(firstBlock + block, offset);
    }
    return { first: start + blocks, count };
  }

  #scan(slice: number, from: number, most: number): Run {
    const { cache } = this.#tables;
    const start = alignDown(from, this.#perSlice);
    const run = { first: 0, count: 0 };
    let index: number;
    let sequence: number;
    do {
      index = cache.find(0, slice);
      sequence = cache.sequence;
      run.count = 0;
      let entry = from - start;
      while (entry < this.#perSlice && this.#load(index, entry) !== 0) entry++;
      run.first = start + entry;
      const end = Math.min(this.#perSlice, entry + most);
      while (entry < end && this.#load(index, entry) === 0) entry++;
      run.count = start + entry - run.first;
    } while (!cache.unchanged(index, sequence));
    return run;
  }

  /** Where in the file the slice with a cluster's count lies; -1 where there is no block. */
  #sliceOf(cluster: number): number {
    const tables = this.#tables;
    const { state, geometry } = tables;
    const block = Math.floor(cluster / this.#perBlock);
    if (block >= this.#tableEntries) return -1;
    const at = state.refcountTableOffset + block * ENTRY_SIZE;
    tables.read(at);
    const { offset } = tables;
    if (offset === 0) return -1;
    if (offset % geometry.clusterSize !== 0 || offset > Number.MAX_SAFE_INTEGER) {
      throw this.#guard.corrupt(
        `refcount block offset 0x${offset.toString(16)} is not a multiple of ${geometry.clusterSize}`,
        at,
      );
    }
    const within = Math.floor((cluster % this.#perBlock) / this.#perSlice);
    return offset + within * geometry.sliceSize;
  }

  /** Makes the block that counts `cluster`, a free one, in that cluster. */
  #createBlock(cluster: number): void {
    const tables = this.#tables;
    const { geometry } = tables;
    const { clusterSize } = geometry;
    const block = Math.floor(cluster / this.#perBlock);
    if (block >= this.#tableEntries) {
      this.#growTable(block);
      return;
    }
    const offset = cluster * clusterSize;
    this.#guard.claim(cluster, 1);
    tables.clear(offset, clusterSize);
    const within = Math.floor((cluster % this.#perBlock) / this.#perSlice);
    const index = tables.edit(offset + within * geometry.sliceSize, RANK.REFCOUNT_BLOCK);
    this.#store(index, cluster % this.#perSlice, 1);
    tables.cache.endEdit(index);
    this.#nameBlock(block, offset);
  }

  /** Lets the table name block `block`, which is in the file at `offset`. */
  #nameBlock(block: number, offset: number): void {
    const at = this.#tables.state.refcountTableOffset + block * ENTRY_SIZE;
    const [low, high] = [offset % TWO_32, Math.floor(offset / TWO_32)];
    this.#tables.write(at, low, high, RANK.REFCOUNT_TABLE);
  }

  /** How many blocks the table can name. */
  get #tableEntries(): number {
    const { geometry, state } = this.#tables;
    return (state.refcountTableClusters * geometry.clusterSize) / ENTRY_SIZE;
  }

  /**
   * Makes the table reach block `needed`, half as large again at least. The new table lies behind all
   * that the old one can count, with the blocks for itself in front of it. All of that is durable
   * before the header names it; a crash before that leaves the old table, whole. `room`: entries to
   * be left free at its end.
   */
  #growTable(needed: number, room = 0): void {
    const tables = this.#tables;
    const { state, storage } = tables;
    const { clusterSize } = tables.geometry;
    const oldEntries = this.#tableEntries;
    const firstBlock = Math.max(oldEntries, needed);
    const start = firstBlock * this.#perBlock;
    let blocks = 1;
    let clusters = 0;
    for (let last = 0; last !== blocks; ) {
      last = blocks;
      const entries = Math.max(firstBlock + blocks + room, Math.ceil(oldEntries * 1.5));
      clusters = Math.ceil((entries * ENTRY_SIZE) / clusterSize);
      blocks = Math.ceil((blocks + clusters) / this.#perBlock);
    }
    const size = clusters * clusterSize;
    if (size > LIMIT.MAX_REFCOUNT_TABLE_SIZE) {
      throw new ImageError('invalid', 'EFBIG', `${storage.name}: the refcount table cannot grow`, {
        limit: `at most ${LIMIT.MAX_REFCOUNT_TABLE_SIZE} bytes`,
      });
    }
    if (start + blocks + clusters > this.#limit) throw this.#full();
    this.#guard.claim(start, blocks + clusters);
    // The old table's changes are read back from the file.
    tables.makeRoom();
    const table = new IoBuffer(size);
    storage.read(table, 0, oldEntries * ENTRY_SIZE, state.refcountTableOffset);
    for (let block = 0; block < blocks; block++) {
      const offset = (start + block) * clusterSize;
      table.view.setBigUint64((firstBlock + block) * ENTRY_SIZE, BigInt(offset));
      const counted = start + blocks + clusters - (firstBlock + block) * this.#perBlock;
      this.#writeFullBlock(offset, Math.min(counted, this.#perBlock));
    }
    const offset = (start + blocks) * clusterSize;
    tables.writeTable(offset, table, size);
    storage.flush();
    setRefcountTable(storage, { refcountTableOffset: offset, refcountTableClusters: clusters });
    storage.flush();
    const old = {
      first: state.refcountTableOffset / clusterSize,
      count: state.refcountTableClusters,
    };
    state.refcountTableOffset = offset;
    state.refcountTableClusters = clusters;
    tables.forget(old.first * clusterSize, old.count * clusterSize);
    this.#guard.disclaim(old.first, old.count);
    // The header does not name it any more, and that is durable.
    this.add(old.first, old.count, -1);
    state.freeHint = Math.min(state.freeHint, old.first);
  }

  /** Writes a new block whose first `counted` clusters have the count 1. */
  #writeFullBlock(offset: number, counted: number): void {
    const { clusterSize } = this.#tables.geometry;
    const block = new IoBuffer(clusterSize);
    for (let n = 0; n < counted; n++) writeCount(block.view, this.#bits, n, 1);
    this.#tables.writeTable(offset, block, clusterSize);
  }

  /** Entry `entry` of the slice at `index`: big-endian in the file, groups of 8 bytes turned round. */
  #load(index: number, entry: number): number {
    const { cache } = this.#tables;
    switch (this.#bits) {
      case 16:
        return cache.halves[index * 2 + (entry ^ 3)]!;
      case 32:
        return cache.words[index + (entry ^ 1)]!;
      case 64:
        return cache.words[index + entry * 2 + 1]! * TWO_32 + cache.words[index + entry * 2]!;
      case 8:
        return cache.bytes[index * 4 + (entry ^ 7)]!;
      default: {
        const bit = entry * this.#bits;
        const byte = cache.bytes[index * 4 + ((bit >> 3) ^ 7)]!;
        return (byte >> (bit & 7)) & this.max;
      }
    }
  }

  #store(index: number, entry: number, value: number): void {
    const { cache } = this.#tables;
    switch (this.#bits) {
      case 16:
        cache.halves[index * 2 + (entry ^ 3)] = value;
        break;
      case 32:
        cache.words[index + (entry ^ 1)] = value;
        break;
      case 64:
        cache.words[index + entry * 2 + 1] = Math.floor(value / TWO_32);
        cache.words[index + entry * 2] = value % TWO_32;
        break;
      case 8:
        cache.bytes[index * 4 + (entry ^ 7)] = value;
        break;
      default: {
        const bit = entry * this.#bits;
        const at = index * 4 + ((bit >> 3) ^ 7);
        cache.bytes[at] = (cache.bytes[at]! & ~(this.max << (bit & 7))) | (value << (bit & 7));
      }
    }
  }

  /** Beyond what a number holds, which only 64 bits reach; false where they do not hold it. */
  #addExactly(index: number, entry: number, delta: number): boolean {
    const { words } = this.#tables.cache;
    const at = index + entry * 2;
    const sum = (BigInt(words[at + 1]!) << 32n) + BigInt(words[at]!) + BigInt(delta);
    if (sum !== BigInt.asUintN(64, sum)) return false;
    words[at + 1] = Number(sum >> 32n);
    words[at] = Number(sum & 0xffff_ffffn);
    return true;
  }

  #overflow(cluster: number): ImageError {
    return new ImageError(
      'invalid',
      'EINVAL',
      `${this.#tables.storage.name}: cluster ${cluster} has all the references it can have`,
      { limit: `refcounts of ${this.#bits} bits: at most ${this.max}` },
    );
  }

  #underflow(cluster: number): ImageError {
    return this.#guard.corrupt(
      'a cluster in use has no reference count',
      cluster * this.#tables.geometry.clusterSize,
    );
  }

  #full(): ImageError {
    const size = this.#limit * this.#tables.geometry.clusterSize;
    return new ImageError('invalid', 'ENOSPC', `${this.#tables.storage.name}: no free cluster`, {
      limit: `the device has ${size} bytes`,
    });
  }
}
