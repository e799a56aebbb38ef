/**
 * Zeroes by entries alone, as QEMU's own requests to write zeroes and to discard make them: the entry says
 * `zero` even where nothing lies below, and what an entry cannot say is left to the caller. With the
 * reservation.
 *
 * The order is that of all entries: what they let go of is free, or a hole, only when they are durable.
 * A crash before that shows the old bytes; in a data file, whose ranges become holes at once, zeroes.
 */
import { alignDown, alignUp } from '../../codec/bits.js';
import type { Disk } from '../disk.js';
import type { Geometry } from './geometry.js';
import { hostLow, hostOffsetOf, isAllocated, isCompressed } from './l2.js';
import { L2Entry, type L2Tables } from './l2-tables.js';
import { subclusterMask } from './subclusters.js';
import type { Tables } from './tables.js';

const ALL_SUBCLUSTERS = 0xffff_ffff;

export class ZeroMarker {
  readonly #tables: Tables;
  readonly #l2: L2Tables;
  readonly #geometry: Geometry;
  readonly #disk: Disk;
  readonly #entry = new L2Entry();
  readonly #changed = new L2Entry();

  constructor(tables: Tables, l2: L2Tables, disk: Disk) {
    this.#tables = tables;
    this.#l2 = l2;
    this.#geometry = tables.geometry;
    this.#disk = disk;
  }

  /**
   * Marks a range of whole subclusters - of clusters, where there are none; the disk may end in the
   * last one. `unmap`: host clusters are let go of, else they stay set aside. False where entries cannot
   * say that, in version 2 or of a part of a compressed cluster; what lies before is marked then.
   */
  zero(offset: number, length: number, unmap: boolean): boolean {
    const { clusterSize, version } = this.#geometry;
    if (version < 3) {
      if (this.#disk.backing !== null) return false;
      this.discard(offset, length);
      return true;
    }
    const end = offset + length;
    const to = end === this.#disk.size ? alignUp(end, clusterSize) : end;
    let possible = true;
    const first = alignDown(offset, clusterSize);
    this.#l2.eachCluster(first, alignUp(to, clusterSize), to, (table, index, guest) => {
      if (!possible) return;
      const from = Math.max(offset, guest) - guest;
      const part = Math.min(to, guest + clusterSize) - guest;
      this.#l2.read(table, index, this.#entry);
      if (from === 0 && part === clusterSize) this.#zeroCluster(table, index, guest, unmap);
      else if (isCompressed(this.#entry.high)) possible = false;
      else this.#zeroPart(table, index, from, part);
    });
    return possible;
  }

  /**
   * Lets go of the whole clusters of a range; the disk may end in the last one. Over a backing file,
   * version 2 cannot say that nothing is there: its clusters stay.
   */
  discard(offset: number, length: number): void {
    const { clusterSize, extendedL2, version } = this.#geometry;
    const below = this.#disk.backing !== null;
    if (version < 3 && below) return;
    const end = offset + length;
    const from = alignUp(offset, clusterSize);
    const to = end === this.#disk.size ? alignUp(end, clusterSize) : alignDown(end, clusterSize);
    this.#l2.eachCluster(from, to, below ? to : 0, (table, index, guest) => {
      this.#l2.read(table, index, this.#entry);
      if (!below && !this.#hasHost()) return;
      const entry = this.#changed.set(hostLow(0, version >= 3 && !extendedL2), 0);
      if (extendedL2) entry.zero = ALL_SUBCLUSTERS;
      this.#letGo(table, index, guest, entry);
    });
  }

  #zeroCluster(table: number, index: number, guest: number, unmap: boolean): void {
    const { extendedL2 } = this.#geometry;
    const { low, high } = this.#entry;
    const freed = isCompressed(high) || (unmap && this.#hasHost());
    const host = freed ? 0 : hostOffsetOf(low, high);
    const entry = this.#changed.set(hostLow(host, !extendedL2), freed ? 0 : high);
    if (extendedL2) entry.zero = ALL_SUBCLUSTERS;
    if (freed) this.#letGo(table, index, guest, entry);
    else this.#l2.replace(table, index, this.#entry, entry);
  }

  /** Subclusters of a cluster, by their bytes in it. */
  #zeroPart(table: number, index: number, from: number, to: number): void {
    const { subclusterSize } = this.#geometry;
    const { low, high, allocated, zero } = this.#entry;
    const mask = subclusterMask(from / subclusterSize, to / subclusterSize);
    const entry = this.#changed.set(low, high, allocated & ~mask, zero | mask);
    this.#l2.replace(table, index, this.#entry, entry);
  }

  /** Whether the entry that was read has a host cluster, or compressed data. */
  #hasHost(): boolean {
    const { low, high } = this.#entry;
    const external = this.#tables.data !== null;
    return isCompressed(high) || isAllocated(hostOffsetOf(low, high), high, external);
  }

  #letGo(table: number, index: number, guest: number, entry: L2Entry): void {
    const { data } = this.#tables;
    const length = Math.min(this.#geometry.clusterSize, this.#disk.size - guest);
    if (this.#hasHost()) data?.punch(guest, length);
    this.#l2.replace(table, index, this.#entry, entry);
  }
}
