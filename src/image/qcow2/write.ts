/**
 * Writing to the active disk. Where the clusters are the disk's own, bytes go straight to them, many
 * writers at once. Everything else allocates, one at a time: data goes to clusters that nothing refers
 * to, then entries in the cache refer to them, and the flush makes both durable in that order.
 *
 * Only what the write leaves of a cluster is copied (of a subcluster, where the image has them), and
 * nothing where that reads as zeroes and the host's file has none there yet.
 */
import { alignDown, alignUp } from '../../codec/bits.js';
import type { ImageLock } from '../../shared/image-lock.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Disk } from '../disk.js';
import { EXTENT, Extent, SECTOR_SIZE } from '../extent.js';
import type { Allocator } from './allocator.js';
import type { Geometry } from './geometry.js';
import type { GuestData } from './guest-data.js';
import { copiedHigh, hostLow, hostOffsetOf, isCompressed } from './l2.js';
import { L2Entry, type L2Tables } from './l2-tables.js';
import type { OverlapGuard } from './overlap.js';
import type { Run } from './refcount.js';
import { subclusterMask } from './subclusters.js';
import type { Tables } from './tables.js';

/** Bytes to be written: `length` bytes of `source` from byte `at` on. */
interface Bytes {
  readonly source: IoBuffer;
  readonly at: number;
}

export class ClusterWriter {
  readonly #tables: Tables;
  readonly #l2: L2Tables;
  readonly #allocator: Allocator;
  readonly #guard: OverlapGuard;
  readonly #geometry: Geometry;
  readonly #disk: Disk;
  readonly #data: GuestData;
  readonly #extent = new Extent();
  readonly #entry = new L2Entry();
  readonly #changed = new L2Entry();
  /** A cluster that is put together of old and new bytes. */
  readonly #scratch: IoBuffer;

  constructor(
    tables: Tables,
    l2: L2Tables,
    allocator: Allocator,
    guard: OverlapGuard,
    disk: Disk,
    data: GuestData,
  ) {
    this.#data = data;
    this.#tables = tables;
    this.#l2 = l2;
    this.#allocator = allocator;
    this.#guard = guard;
    this.#geometry = tables.geometry;
    this.#disk = disk;
    this.#scratch = new IoBuffer(tables.geometry.clusterSize);
  }

  /**
   * Writes as far as the clusters are there and the disk's own, with the lock held in the shared way.
   * Answers how many bytes that was. Whole sectors, where the disk is encrypted.
   */
  writeInPlace(
    offset: number,
    length: number,
    source: IoBuffer,
    at: number,
    lock: ImageLock,
  ): number {
    const extent = this.#extent;
    let done = 0;
    // What was mapped behind that and lies in one piece, at `host`.
    let ready = 0;
    let host = 0;
    lock.enterShared();
    try {
      while (done + ready < length) {
        this.#disk.mapping.map(offset + done + ready, length - done - ready, extent);
        if (extent.kind !== EXTENT.DATA || !extent.copied) break;
        if (extent.hostOffset !== host + ready) {
          if (ready > 0) this.#writeData(host, offset + done, ready, { source, at: at + done });
          done += ready;
          ready = 0;
          host = extent.hostOffset;
        }
        ready += extent.length;
      }
      // What is followed by zeroes with a place of their own is written together with them, by `write`.
      const joined = done + ready < length && extent.kind === EXTENT.ZERO && extent.preallocated;
      if (ready > 0 && !joined) {
        this.#writeData(host, offset + done, ready, { source, at: at + done });
        done += ready;
      }
    } finally {
      lock.leaveShared();
    }
    return done;
  }

  /**
   * Writes all of it, with the reservation. What was written before an error stays. Parts of sectors of an
   * encrypted disk are written together with the rest of them: alone.
   */
  write(offset: number, length: number, source: IoBuffer, at: number): void {
    if (!this.#data.encrypted) {
      this.#writeAll(offset, length, source, at);
      return;
    }
    const end = offset + length;
    const from = Math.min(end, alignUp(offset, SECTOR_SIZE));
    const to = Math.max(from, alignDown(end, SECTOR_SIZE));
    if (from > offset) this.#writePart(offset, from, source, at);
    if (to > from) this.#writeAll(from, to - from, source, at + from - offset);
    if (end > to) this.#writePart(to, end, source, at + to - offset);
  }

  /** A part of one sector. */
  #writePart(from: number, to: number, source: IoBuffer, at: number): void {
    const start = alignDown(from, SECTOR_SIZE);
    const sector = new IoBuffer(SECTOR_SIZE);
    this.#disk.read(start, SECTOR_SIZE, sector, 0);
    source.bytes.copy(sector.bytes, from - start, at, at + to - from);
    this.#writeAll(start, SECTOR_SIZE, sector, 0);
  }

  #writeAll(offset: number, length: number, source: IoBuffer, at: number): void {
    for (let done = 0; done < length; ) {
      done += this.#writeSome(offset + done, length - done, { source, at: at + done });
    }
  }

  /** Writes a first part of the range; answers its length. */
  #writeSome(offset: number, length: number, bytes: Bytes): number {
    const { clusterSize, l2Coverage } = this.#geometry;
    const l1Index = Math.floor(offset / l2Coverage);
    const within = offset - l1Index * l2Coverage;
    const table = this.#l2.forWriting(l1Index);
    const most = Math.min(length, l2Coverage - within);
    const index = Math.floor(within / clusterSize);
    this.#l2.read(table, index, this.#entry);
    const start = alignDown(offset, clusterSize);
    if (this.#tables.owns(this.#entry.low, this.#entry.high, start)) {
      const count = offset === start ? this.#countOwn(table, index, most, start) : 0;
      const n = count * clusterSize || Math.min(most, clusterSize - (offset - start));
      if (count > 0) this.#writeOwnClusters(table, index, count, offset, bytes);
      else this.#writeToOwn(table, index, offset, n, bytes);
      return n;
    }
    const stop = Math.ceil((within + most) / clusterSize);
    const wanted = this.#countWithoutOwn(table, index, stop, start);
    const run = this.#placesFor(start, wanted);
    const end = Math.min(within + most, (index + run.count) * clusterSize);
    let linked = 0;
    try {
      const masks = this.#writeToNew(table, index, run, offset, end - within, bytes);
      for (; linked < run.count; linked++) {
        const host = (run.first + linked) * clusterSize;
        this.#link(table, index + linked, host, masks.get(linked));
      }
    } catch (error) {
      if (this.#tables.data === null) {
        this.#allocator.undo({ first: run.first + linked, count: run.count - linked });
      }
      throw error;
    }
    return end - within;
  }

  /** Host clusters for guest clusters from the one at `guest` on: in a data file, their own places. */
  #placesFor(guest: number, count: number): Run {
    if (this.#tables.data === null) return this.#allocator.allocate(count);
    return { first: guest / this.#geometry.clusterSize, count };
  }

  /**
   * How many entries from `index` on, up to `end`, have no host cluster of their own. `guest`: the
   * first one's place.
   */
  #countWithoutOwn(table: number, index: number, end: number, guest: number): number {
    const { clusterSize } = this.#geometry;
    let at = index + 1;
    for (; at < end; at++) {
      this.#l2.read(table, at, this.#entry);
      const place = guest + (at - index) * clusterSize;
      if (this.#tables.owns(this.#entry.low, this.#entry.high, place)) break;
    }
    return at - index;
  }

  /** How many whole clusters from `index` on, in `length` bytes, have places of their own in one piece. */
  #countOwn(table: number, index: number, length: number, guest: number): number {
    const { clusterSize } = this.#geometry;
    const entry = this.#changed;
    const host = hostOffsetOf(this.#entry.low, this.#entry.high);
    let count = 0;
    for (let at = 0; at + clusterSize <= length; at += clusterSize, count++) {
      this.#l2.read(table, index + count, entry);
      if (!this.#tables.owns(entry.low, entry.high, guest + at)) break;
      if (hostOffsetOf(entry.low, entry.high) !== host + at) break;
    }
    return count;
  }

  /** All of clusters whose places lie in one piece: one write, then the entries that call some of it zero. */
  #writeOwnClusters(
    table: number,
    index: number,
    count: number,
    offset: number,
    bytes: Bytes,
  ): void {
    const { clusterSize, extendedL2 } = this.#geometry;
    const host = hostOffsetOf(this.#entry.low, this.#entry.high);
    this.#writeData(host, offset, count * clusterSize, bytes);
    const all = extendedL2 ? 0xffff_ffff : 0;
    for (let n = 0; n < count; n++) {
      this.#l2.read(table, index + n, this.#entry);
      const entry = this.#changed.set(hostLow(host + n * clusterSize), this.#entry.high, all, 0);
      if (!entry.equals(this.#entry)) this.#l2.write(table, index + n, entry);
    }
  }

  /** A cluster that has its host cluster, of which not all need be data. */
  #writeToOwn(table: number, index: number, offset: number, length: number, bytes: Bytes): void {
    const { low, high } = this.#entry;
    const host = hostOffsetOf(low, high);
    const entry = this.#changed.set(low, high, this.#entry.allocated, this.#entry.zero);
    this.#fillAndWrite(host, offset, length, bytes, { moving: false, virgin: false }, entry);
    entry.low = hostLow(host);
    if (!entry.equals(this.#entry)) this.#l2.write(table, index, entry);
  }

  /**
   * Fills new host clusters, which are linked after that. Answers the masks of those, by their place in
   * the run, that the write covers in part.
   */
  #writeToNew(
    table: number,
    index: number,
    run: Run,
    offset: number,
    length: number,
    bytes: Bytes,
  ): Map<number, L2Entry> {
    const { clusterSize } = this.#geometry;
    const { state } = this.#tables;
    const host = run.first * clusterSize;
    const start = alignDown(offset, clusterSize);
    const end = offset + length;
    const inImage = this.#tables.data === null;
    // What the file has where nothing was ever written are zeroes, but encrypted ones are something else.
    const virgin = inImage && !this.#data.encrypted && run.first >= state.virginFrom;
    if (inImage) state.virginFrom = Math.max(state.virginFrom, run.first + run.count);
    const edges = { moving: true, virgin };
    const masks = new Map<number, L2Entry>();
    const partial = (from: number, to: number): void => {
      const n = Math.floor((from - start) / clusterSize);
      this.#l2.read(table, index + n, this.#entry);
      const { allocated, zero, high } = this.#entry;
      // Of a compressed cluster all subclusters are copied.
      const entry = isCompressed(high) ? new L2Entry() : new L2Entry().set(0, 0, allocated, zero);
      const part = { source: bytes.source, at: bytes.at + from - offset };
      this.#fillAndWrite(host + n * clusterSize, from, to - from, part, edges, entry);
      masks.set(n, entry);
    };
    // The clusters that the write covers go out at once; the first and last may be covered in part.
    let from = offset;
    let to = end;
    if (from % clusterSize !== 0 || end < alignUp(from + 1, clusterSize)) {
      from = Math.min(end, alignUp(from + 1, clusterSize));
      partial(offset, from);
    }
    if (to > from && to % clusterSize !== 0) {
      to = alignDown(to, clusterSize);
      partial(to, end);
    }
    if (to > from) {
      const part = { source: bytes.source, at: bytes.at + from - offset };
      this.#writeData(host + (from - start), from, to - from, part);
    }
    return masks;
  }

  /** Makes an entry refer to a new host cluster, and lets go of the old one. */
  #link(table: number, index: number, host: number, masks: L2Entry | undefined): void {
    const { extendedL2 } = this.#geometry;
    const all = extendedL2 ? 0xffff_ffff : 0;
    this.#l2.read(table, index, this.#entry);
    const allocated = extendedL2 && masks !== undefined ? masks.allocated : all;
    const zero = extendedL2 && masks !== undefined ? masks.zero : 0;
    const entry = this.#changed.set(hostLow(host), copiedHigh(host), allocated, zero);
    // Behind the change nothing may fail: who undoes the allocation must know that it is in use.
    this.#allocator.makeRoomToFree();
    this.#l2.write(table, index, entry);
    this.#l2.freeClusters(this.#entry);
  }

  /**
   * Writes a part of one cluster to its host cluster at `host`, with what must come along: the rest of
   * the units at its ends, and when the cluster is moving, all else that it holds. `entry`'s masks are
   * changed to say what the host cluster then has.
   */
  #fillAndWrite(
    host: number,
    offset: number,
    length: number,
    { source, at }: Bytes,
    how: { readonly moving: boolean; readonly virgin: boolean },
    entry: L2Entry,
  ): void {
    const { clusterSize, subclusterSize } = this.#geometry;
    const start = alignDown(offset, clusterSize);
    const end = offset + length;
    const low = alignDown(offset, subclusterSize);
    const high = alignUp(end, subclusterSize);
    let from = offset;
    let to = end;
    if (low < from && this.#mustFill(low, how)) from = low;
    if (to < high && this.#mustFill(high - subclusterSize, how)) to = this.#upTo(high, end);
    const scratch = this.#scratch;
    if (from < offset || to > end) {
      this.#readOld(from, offset, start);
      this.#readOld(end, to, start);
      source.bytes.copy(scratch.bytes, offset - start, at, at + length);
      const whole = { source: scratch, at: from - start };
      this.#writeData(host + (from - start), from, to - from, whole);
    } else this.#writeData(host + (offset - start), offset, length, { source, at });
    if (how.moving) {
      this.#moveOthers(host, start, start, low, entry);
      this.#moveOthers(host, start, high, start + clusterSize, entry);
    }
    const mask = subclusterMask((low - start) / subclusterSize, (high - start) / subclusterSize);
    if (!this.#geometry.extendedL2) return;
    entry.set(entry.low, entry.high, entry.allocated | mask, entry.zero & ~mask);
  }

  /** A data file does not become longer than the disk is. */
  #upTo(high: number, end: number): number {
    if (this.#tables.data === null) return high;
    return Math.max(end, Math.min(high, this.#disk.size));
  }

  /** Whether what the write leaves of the unit at `offset` has to be put into the host cluster. */
  #mustFill(offset: number, { moving, virgin }: { moving: boolean; virgin: boolean }): boolean {
    const extent = this.#extent;
    this.#disk.mapping.map(offset, 1, extent);
    if (extent.kind === EXTENT.DATA) return moving;
    return extent.kind === EXTENT.COMPRESSED || !virgin || !this.#readsZero(extent, offset);
  }

  #readsZero(extent: Extent, offset: number): boolean {
    if (extent.kind === EXTENT.ZERO) return true;
    const below = this.#disk.backing;
    return extent.kind === EXTENT.UNALLOCATED && (below === null || offset >= below.size);
  }

  /** Reads old bytes [from, to) into the scratch cluster, which begins at `start`. */
  #readOld(from: number, to: number, start: number): void {
    const there = Math.max(from, Math.min(to, this.#disk.size));
    if (there > from) this.#disk.read(from, there - from, this.#scratch, from - start);
    if (to > there) this.#scratch.bytes.fill(0, there - start, to - start);
  }

  /** Copies the units of [from, to) that the old host cluster holds, into the new one. */
  #moveOthers(host: number, start: number, from: number, to: number, entry: L2Entry): void {
    const { subclusterSize } = this.#geometry;
    const extent = this.#extent;
    const stop = Math.min(to, this.#disk.size);
    for (let at = from; at < stop; ) {
      this.#disk.mapping.map(at, stop - at, extent);
      const { kind, length } = extent;
      if (kind === EXTENT.DATA || kind === EXTENT.COMPRESSED) {
        this.#readOld(at, at + length, start);
        const part = { source: this.#scratch, at: at - start };
        this.#writeData(host + (at - start), at, length, part);
        const last = alignUp(at + length, subclusterSize);
        const mask = subclusterMask((at - start) / subclusterSize, (last - start) / subclusterSize);
        entry.set(entry.low, entry.high, entry.allocated | mask, entry.zero & ~mask);
      }
      at += length;
    }
  }

  /** All data goes out here: never over metadata. */
  #writeData(host: number, guest: number, length: number, { source, at }: Bytes): void {
    const { clusterSize } = this.#geometry;
    if (this.#tables.data === null) {
      const first = Math.floor(host / clusterSize);
      this.#guard.check(first, Math.floor((host + length - 1) / clusterSize) - first + 1);
    }
    this.#data.write(host, guest, length, source, at);
  }
}
