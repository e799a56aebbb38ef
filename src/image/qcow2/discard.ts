/**
 * Making ranges of the active disk zero: with their space given back (discard), or kept; and setting
 * space aside. Whole clusters change by their entries alone; what a range covers of others is written
 * as zeroes. With the reservation.
 *
 * An entry says `zero` where a backing file has bytes below; without one it says nothing at all. Version
 * 2 has no zero flag: over a backing file, zeroes are written there.
 */
import { alignDown, alignUp } from '../../codec/bits.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Disk } from '../disk.js';
import { EXTENT, Extent } from '../extent.js';
import type { Allocator } from './allocator.js';
import type { Geometry } from './geometry.js';
import { copiedHigh, hostLow, hostOffsetOf, isZero } from './l2.js';
import { L2Entry, type L2Tables } from './l2-tables.js';
import type { Tables } from './tables.js';
import type { ClusterWriter } from './write.js';

export class Zeroer {
  readonly #tables: Tables;
  readonly #l2: L2Tables;
  readonly #allocator: Allocator;
  readonly #writer: ClusterWriter;
  readonly #geometry: Geometry;
  readonly #disk: Disk;
  readonly #zeroes: IoBuffer;
  readonly #extent = new Extent();
  readonly #entry = new L2Entry();
  readonly #changed = new L2Entry();

  constructor(
    tables: Tables,
    l2: L2Tables,
    allocator: Allocator,
    writer: ClusterWriter,
    disk: Disk,
    zeroes: IoBuffer,
  ) {
    this.#tables = tables;
    this.#l2 = l2;
    this.#allocator = allocator;
    this.#writer = writer;
    this.#geometry = tables.geometry;
    this.#disk = disk;
    this.#zeroes = zeroes;
  }

  /** Makes [offset, offset + length) zero; `keep`: clusters of the disk's own stay set aside for it. */
  zero(offset: number, length: number, keep: boolean): void {
    const { clusterSize } = this.#geometry;
    const end = offset + length;
    if (this.#tables.data?.raw === true) {
      this.#erase(offset, end, keep);
      return;
    }
    // The last cluster may be longer than the disk: nobody sees what lies behind.
    const to = end === this.#disk.size ? alignUp(end, clusterSize) : alignDown(end, clusterSize);
    const from = alignUp(offset, clusterSize);
    if (from >= to) {
      this.#writeZeroes(offset, end);
      return;
    }
    this.#writeZeroes(offset, from);
    this.#zeroClusters(from, to, keep);
    this.#writeZeroes(Math.min(to, end), end);
  }

  /** Makes [from, to) zero in a data file that is a disk by itself: no entry changes. */
  #erase(from: number, to: number, keep: boolean): void {
    const extent = this.#extent;
    for (let at = from; at < to; ) {
      this.#disk.mapping.map(at, to - at, extent);
      const { kind, length } = extent;
      const punched = kind === EXTENT.DATA && !keep && this.#tables.data!.punch(at, length);
      if (!punched) this.#writeZeroes(at, at + length);
      at += length;
    }
  }

  /** Lets the entries of [from, to), whole clusters, say that the data file has them. */
  adopt(from: number, to: number): void {
    const masks = this.#geometry.extendedL2 ? 0xffff_ffff : 0;
    this.#l2.eachCluster(from, to, to, (table, index, guest) => {
      this.#l2.write(table, index, this.#changed.set(hostLow(guest), copiedHigh(guest), masks));
    });
  }

  /** Frees every cluster of [from, to), whole clusters beyond the new end of the disk. */
  cutOff(from: number, to: number): void {
    this.#l2.eachCluster(from, to, 0, (table, index) => {
      this.#l2.read(table, index, this.#entry);
      this.#replace(table, index, this.#changed.set(0, 0));
    });
  }

  /** Makes [from, to) read as zeroes where nothing but a backing file has bytes there. */
  hideBelow(from: number, to: number): void {
    const below = this.below;
    const end = Math.min(to, alignUp(below, this.#geometry.clusterSize));
    if (from < end) this.zero(from, end - from, false);
  }

  /**
   * Gives each cluster of the range a host cluster of its own, and that the host's space; what is read
   * stays the same.
   */
  preallocate(offset: number, length: number): void {
    const end = offset + length;
    const extent = this.#extent;
    for (let at = offset; at < end; ) {
      this.#disk.mapping.map(at, end - at, extent);
      const { kind, preallocated, copied, length: run } = extent;
      if (kind === EXTENT.COMPRESSED || (kind === EXTENT.DATA && !copied)) {
        this.#rewriteAll(at, at + run);
      } else if (kind === EXTENT.UNALLOCATED || (kind === EXTENT.ZERO && !preallocated)) {
        this.#setAside(at, at + run);
      } else if (kind === EXTENT.DATA) this.#reserve(extent.hostOffset, run);
      at += run;
    }
  }

  #reserve(host: number, length: number): void {
    const { data, storage } = this.#tables;
    (data ?? storage).reserve(host, length);
  }

  /** Up to where a backing file has bytes. */
  get below(): number {
    return this.#disk.backing === null ? 0 : this.#disk.backing.size;
  }

  /** Zeroes where something else is read. */
  #writeZeroes(from: number, to: number): void {
    const extent = this.#extent;
    for (let at = from; at < to; ) {
      this.#disk.mapping.map(at, to - at, extent);
      const stop = at + extent.length;
      if (extent.kind === EXTENT.UNALLOCATED) {
        const below = this.below;
        this.#put(at, Math.min(stop, below));
      } else if (extent.kind !== EXTENT.ZERO) this.#put(at, stop);
      at = stop;
    }
  }

  /** Writes zeroes into the whole range. */
  write(from: number, to: number): void {
    this.#put(from, to);
  }

  #put(from: number, to: number): void {
    for (let at = from; at < to; ) {
      const n = Math.min(to - at, this.#zeroes.length);
      this.#writer.write(at, n, this.#zeroes, 0);
      at += n;
    }
  }

  #zeroClusters(from: number, to: number, keep: boolean): void {
    const { clusterSize, extendedL2, version } = this.#geometry;
    const size = this.#disk.size;
    const below = this.below;
    // Without a zero flag, only writing hides what lies below.
    const hidden = version < 3 ? alignUp(Math.min(below, to), clusterSize) : from;
    if (hidden > from) this.#writeZeroes(from, Math.min(hidden, size));
    const { data } = this.#tables;
    if (!keep) data?.punch(from, Math.min(to, size) - from);
    this.#l2.eachCluster(Math.max(from, hidden), to, below, (table, index, guest) => {
      this.#l2.read(table, index, this.#entry);
      const { low, high } = this.#entry;
      const entry = this.#changed.set(0, 0);
      const kept = keep && version >= 3 && this.#tables.owns(low, high, guest);
      const host = kept ? hostOffsetOf(low, high) : 0;
      const flag = kept || (version >= 3 && guest < below);
      entry.low = hostLow(host, flag && !extendedL2);
      if (kept) entry.high = copiedHigh(host);
      if (flag && extendedL2) entry.zero = 0xffff_ffff;
      this.#replace(table, index, entry);
    });
  }

  /** Changes the entry that was read. */
  #replace(table: number, index: number, entry: L2Entry): void {
    this.#l2.replace(table, index, this.#entry, entry);
  }

  /** Host clusters for whole clusters that hold nothing yet, or, over other bytes, a copy of them. */
  #setAside(from: number, to: number): void {
    const { clusterSize, version } = this.#geometry;
    const below = this.below;
    const start = alignDown(from, clusterSize);
    for (let guest = start; guest < to; guest += clusterSize) {
      const end = Math.min(guest + clusterSize, this.#disk.size);
      const written = this.#geometry.extendedL2 || this.#tables.data?.raw === true;
      if (version < 3 || guest < below || written) this.#rewrite(guest, end);
      else this.#setAsideZero(guest);
    }
  }

  #rewriteAll(from: number, to: number): void {
    const { clusterSize } = this.#geometry;
    for (let at = from; at < to; ) {
      const end = Math.min(to, alignUp(at + 1, clusterSize));
      this.#rewrite(at, end);
      at = end;
    }
  }

  /** Writes what is there: into clusters of the disk's own, then. */
  #rewrite(from: number, to: number): void {
    const buffer = new IoBuffer(to - from);
    this.#disk.read(from, to - from, buffer, 0);
    this.#writer.write(from, to - from, buffer, 0);
  }

  #setAsideZero(guest: number): void {
    const { clusterSize, l2Coverage } = this.#geometry;
    const table = this.#l2.forWriting(Math.floor(guest / l2Coverage));
    const index = Math.floor((guest % l2Coverage) / clusterSize);
    this.#l2.read(table, index, this.#entry);
    const { low, high } = this.#entry;
    const { data } = this.#tables;
    if (this.#tables.owns(low, high, guest)) return;
    if (!isZero(low) && hostOffsetOf(low, high) !== 0) return;
    if (data !== null) {
      data.reserve(guest, Math.min(clusterSize, this.#disk.size - guest));
      this.#l2.write(table, index, this.#changed.set(hostLow(guest, true), copiedHigh(guest)));
      return;
    }
    const run = this.#allocator.allocate(1);
    const host = run.first * clusterSize;
    try {
      if (!this.#tables.storage.reserve(host, clusterSize)) {
        this.#tables.writeZeroes(host, clusterSize);
      }
      this.#replace(table, index, this.#changed.set(hostLow(host, true), copiedHigh(host)));
    } catch (error) {
      this.#allocator.undo(run);
      throw error;
    }
  }
}
