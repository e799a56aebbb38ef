/** The active L2 tables, as who writes needs them: of the disk's own, and entry by entry. */
import { RANK } from '../../shared/slice-cache.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Allocator } from './allocator.js';
import type { Geometry } from './geometry.js';
import {
  copiedHigh,
  decodeCompressed,
  hasReservedL1Bits,
  hasReservedL2Bits,
  hostLow,
  hostOffsetOf,
  isCompressed,
  isCopied,
  Piece,
} from './l2.js';
import type { OverlapGuard } from './overlap.js';
import type { Tables } from './tables.js';

const L1_ENTRY_SIZE = 8;

/** An L2 entry's raw words. A mutable record that its owner uses again and again. */
export class L2Entry {
  low = 0;
  high = 0;
  /** Masks of subclusters, with extended entries. */
  allocated = 0;
  zero = 0;

  set(low: number, high: number, allocated = 0, zero = 0): this {
    this.low = low >>> 0;
    this.high = high >>> 0;
    this.allocated = allocated >>> 0;
    this.zero = zero >>> 0;
    return this;
  }

  equals({ low, high, allocated, zero }: L2Entry): boolean {
    return (
      this.low === low && this.high === high && this.allocated === allocated && this.zero === zero
    );
  }
}

export class L2Tables {
  readonly #tables: Tables;
  readonly #allocator: Allocator;
  readonly #guard: OverlapGuard;
  readonly #geometry: Geometry;
  readonly #piece = new Piece();

  constructor(tables: Tables, allocator: Allocator, guard: OverlapGuard) {
    this.#tables = tables;
    this.#allocator = allocator;
    this.#guard = guard;
    this.#geometry = tables.geometry;
  }

  /** The offset of L2 table `l1Index`; 0 where there is none. */
  find(l1Index: number): number {
    const { state } = this.#tables;
    if (l1Index >= state.l1Size) return 0;
    const at = state.l1TableOffset + l1Index * L1_ENTRY_SIZE;
    this.#tables.read(at);
    const { low, high } = this.#tables;
    const offset = hostOffsetOf(low, high);
    const { clusterSize } = this.#geometry;
    if (offset % clusterSize !== 0 || offset > Number.MAX_SAFE_INTEGER) {
      const problem = `L2 table offset 0x${offset.toString(16)} is not a multiple of ${clusterSize}`;
      throw this.#guard.corrupt(problem, at);
    }
    if (hasReservedL1Bits(low, high)) {
      throw this.#guard.corrupt('L1 entry with reserved bits', at);
    }
    return offset;
  }

  /**
   * The offset of L2 table `l1Index`, which may be changed: made where there is none, copied where a
   * snapshot shares it. The L1 entry follows its table to the disk (RANK); until then a crash finds the
   * old one, whose clusters stay counted.
   */
  forWriting(l1Index: number): number {
    const found = this.find(l1Index);
    if (found !== 0 && isCopied(this.#tables.high)) return found;
    const { clusterSize } = this.#geometry;
    const { state, storage } = this.#tables;
    const offset = this.#allocator.makeTable(1, (place) => {
      if (found === 0) {
        this.#tables.clear(place, clusterSize);
        return;
      }
      const table = new IoBuffer(clusterSize);
      storage.read(table, 0, clusterSize, found);
      this.#tables.writeTable(place, table, clusterSize);
    });
    this.#tables.countsTables();
    const at = state.l1TableOffset + l1Index * L1_ENTRY_SIZE;
    this.#allocator.makeRoomToFree();
    this.#tables.write(at, hostLow(offset), copiedHigh(offset), RANK.L1);
    if (found !== 0) this.#allocator.freeTable(found, clusterSize);
    return offset;
  }

  /** Reads entry `index` of the table at `table`. Ends all writing where it has reserved bits. */
  read(table: number, index: number, entry: L2Entry): void {
    const at = table + index * this.#geometry.l2EntrySize;
    const tables = this.#tables;
    tables.read(at);
    const { low, high } = tables;
    if (hasReservedL2Bits(this.#geometry, low, high)) {
      throw this.#guard.corrupt('L2 entry with reserved bits', at);
    }
    if (!isCompressed(high) && hostOffsetOf(low, high) % this.#geometry.clusterSize !== 0) {
      throw this.#guard.corrupt('L2 entry with an unaligned offset', at);
    }
    if (!this.#geometry.extendedL2) {
      entry.set(low, high);
      return;
    }
    // The cached words of the bitmap: allocated in the low half, zero in the high one.
    tables.read(at + 8);
    entry.set(low, high, tables.low, tables.high);
  }

  write(table: number, index: number, { low, high, allocated, zero }: L2Entry): void {
    const { l2EntrySize, sliceSize, extendedL2 } = this.#geometry;
    const at = table + index * l2EntrySize;
    const within = at % sliceSize;
    const slice = this.#tables.edit(at - within, RANK.L2);
    const { words } = this.#tables.cache;
    const word = slice + within / 4;
    words[word] = low;
    words[word + 1] = high;
    if (extendedL2) {
      words[word + 2] = allocated;
      words[word + 3] = zero;
    }
    this.#tables.cache.endEdit(slice);
  }

  /** Changes entry `old` into `entry`; host clusters that this one does not have are let go of. */
  replace(table: number, index: number, old: L2Entry, entry: L2Entry): void {
    if (entry.equals(old)) return;
    const kept =
      !isCompressed(old.high) &&
      hostOffsetOf(old.low, old.high) === hostOffsetOf(entry.low, entry.high);
    // Behind the change nothing may fail: whoever undoes an allocation must know that it is in use.
    this.#allocator.makeRoomToFree();
    this.write(table, index, entry);
    if (!kept) this.freeClusters(old);
  }

  /**
   * Visits each cluster of [from, to) for which there is an L2 table, and those without one that lie
   * below `below`: they get one. The tables may be changed.
   */
  eachCluster(from: number, to: number, below: number, visit: VisitCluster): void {
    const { clusterSize, l2Coverage } = this.#geometry;
    for (let guest = from; guest < to; ) {
      const l1Index = Math.floor(guest / l2Coverage);
      const stop = Math.min(to, (l1Index + 1) * l2Coverage);
      if (this.find(l1Index) !== 0 || guest < below) {
        const table = this.forWriting(l1Index);
        for (; guest < stop; guest += clusterSize) {
          visit(table, Math.floor((guest % l2Coverage) / clusterSize), guest);
        }
      }
      guest = stop;
    }
  }

  /** The host clusters that an entry refers to are let go of: the entry is gone. */
  freeClusters({ low, high }: L2Entry): void {
    const { clusterSize } = this.#geometry;
    const run = this.clustersOf(low, high);
    if (run !== null) this.#allocator.free(run.offset / clusterSize, run.count);
  }

  /** The host clusters that an entry refers to; null where there are none. */
  clustersOf(low: number, high: number): { offset: number; count: number } | null {
    const { clusterSize } = this.#geometry;
    // What lies in a data file is not counted.
    if (this.#tables.data !== null) return null;
    if (!isCompressed(high)) {
      const offset = hostOffsetOf(low, high);
      return offset === 0 ? null : { offset, count: 1 };
    }
    const piece = this.#piece;
    decodeCompressed(this.#geometry, false, low, high, piece);
    if (piece.problem !== null) throw this.#guard.corrupt(piece.problem, piece.hostOffset);
    const first = Math.floor(piece.hostOffset / clusterSize);
    const last = Math.floor((piece.hostOffset + piece.hostLength - 1) / clusterSize);
    return { offset: first * clusterSize, count: last - first + 1 };
  }
}

/** `guest`: the cluster's offset; its entry is `index` of the L2 table at `table`. */
export type VisitCluster = (table: number, index: number, guest: number) => void;
