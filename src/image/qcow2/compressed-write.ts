/**
 * Storing clusters that are compressed already. They lie behind each other, at any byte: host clusters
 * are shared, and each counts as many references as compressed clusters touch it.
 *
 * The order is that of all data: bytes and counts are durable before the L2 entry that names them. A
 * crash before that leaves counts that are too high: a leak. What other clusters have in a shared host
 * cluster lies before, and is never written again.
 */
import { ImageError } from '../../errors.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Allocator } from './allocator.js';
import type { Geometry } from './geometry.js';
import { compressedEntry, hostOffsetOf, isCompressed } from './l2.js';
import { L2Entry, type L2Tables } from './l2-tables.js';
import type { OverlapGuard } from './overlap.js';
import type { Tables } from './tables.js';

/** What compressed data is padded to, so that the last one is whole in the file. */
const SECTOR_SIZE = 512;

export class CompressedWriter {
  readonly #tables: Tables;
  readonly #l2: L2Tables;
  readonly #allocator: Allocator;
  readonly #guard: OverlapGuard;
  readonly #geometry: Geometry;
  readonly #entry = new L2Entry();
  readonly #changed = new L2Entry();
  #scratch = new IoBuffer(0);

  constructor(tables: Tables, l2: L2Tables, allocator: Allocator, guard: OverlapGuard) {
    this.#tables = tables;
    this.#l2 = l2;
    this.#allocator = allocator;
    this.#guard = guard;
    this.#geometry = tables.geometry;
  }

  /**
   * Stores the first `length` bytes of `data` as the cluster at `offset`, which has nothing yet but, maybe,
   * a host cluster without any subcluster in it: that one is let go of. With the reservation.
   */
  write(offset: number, data: Uint8Array, length: number): void {
    const { clusterSize, l2Coverage, extendedL2 } = this.#geometry;
    this.#check(offset, data, length);
    const table = this.#l2.forWriting(Math.floor(offset / l2Coverage));
    const index = Math.floor((offset % l2Coverage) / clusterSize);
    this.#l2.read(table, index, this.#entry);
    const { low, high, allocated, zero } = this.#entry;
    const isEmpty = extendedL2 && (allocated | zero) === 0;
    if (isCompressed(high) || (hostOffsetOf(low, high) !== 0 && !isEmpty)) {
      const message = `${this.#tables.storage.name}: compressed data replaces nothing`;
      throw new ImageError('invalid', 'EIO', message, { offset, limit: 'empty clusters' });
    }
    const host = this.#allocator.allocateBytes(length);
    try {
      const entry = compressedEntry(this.#geometry, host, length);
      if (entry === null) throw this.#tooFar(host);
      this.#put(host, data, length);
      // Behind the change nothing may fail.
      this.#allocator.makeRoomToFree();
      this.#l2.write(table, index, this.#changed.set(entry.low, entry.high));
      if (isEmpty) this.#l2.freeClusters(this.#entry);
    } catch (error) {
      this.#allocator.undoBytes(host, length);
      throw error;
    }
  }

  #check(offset: number, data: Uint8Array, length: number): void {
    const { clusterSize } = this.#geometry;
    const fits = length > 0 && length < clusterSize && length <= data.length;
    if (fits && offset % clusterSize === 0) return;
    throw new ImageError('invalid', 'EINVAL', `${length} bytes as the cluster at ${offset}`, {
      limit: `less than ${clusterSize}, at a multiple of that`,
    });
  }

  #put(host: number, data: Uint8Array, length: number): void {
    const { clusterSize } = this.#geometry;
    if (this.#scratch.length === 0) this.#scratch = new IoBuffer(clusterSize + SECTOR_SIZE);
    const { bytes } = this.#scratch;
    bytes.set(data.subarray(0, length));
    // Nothing lies behind it yet.
    const padding = (SECTOR_SIZE - ((host + length) % SECTOR_SIZE)) % SECTOR_SIZE;
    bytes.fill(0, length, length + padding);
    const first = Math.floor(host / clusterSize);
    const last = Math.floor((host + length - 1) / clusterSize);
    this.#guard.check(first, last - first + 1);
    this.#tables.storage.write(this.#scratch, 0, length + padding, host);
    this.#tables.state.unflushed = true;
  }

  #tooFar(host: number): ImageError {
    const { storage } = this.#tables;
    return new ImageError('invalid', 'EFBIG', `${storage.name}: no place for compressed data`, {
      offset: host,
      limit: `below 2^${this.#geometry.compressedOffsetBits}`,
    });
  }
}
