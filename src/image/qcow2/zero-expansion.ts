/**
 * Zero clusters made what version 2 knows: nothing at all where nothing lies below the disk, else a host
 * cluster of zeroes. In the active disk and in every snapshot; what is read stays the same. For who
 * holds the image alone.
 *
 * A new cluster and its zeroes are durable before the entry that names it, and one that an entry let
 * go of is freed behind it: the flusher's order. A crash leaves clusters that leak, some entries old and
 * some new. Only where a snapshot lets go of a cluster that the active disk has as well, its count
 * may fall to 1 with COPIED clear: the dirty bit covers the time until the flag is set.
 */
import { alignDown } from '../../codec/bits.js';
import { RANK } from '../../shared/slice-cache.js';
import type { Allocator } from './allocator.js';
import type { DirtyBit } from './dirty-bit.js';
import type { Flusher } from './flush.js';
import type { GuestData } from './guest-data.js';
import { copiedHigh, hostLow, hostOffsetOf, isCompressed, isZero, withCopied } from './l2.js';
import type { OverlapGuard } from './overlap.js';
import type { Refcounts } from './refcount.js';
import type { L1Place, SharedReferences } from './shared-references.js';
import type { Tables } from './tables.js';

const L1_ENTRY_SIZE = 8;

/** An L2 table as it is worked on. */
interface L2Table {
  readonly offset: number;
  /** The guest's offset of its first cluster. */
  readonly guest: number;
  /** How many L1 entries name it: all that it refers to has a reference for each. */
  readonly shares: number;
  /** Whether only snapshots have it. */
  readonly inactive: boolean;
}

export class ZeroExpander {
  readonly #tables: Tables;
  readonly #data: GuestData;
  readonly #refcounts: Refcounts;
  readonly #allocator: Allocator;
  readonly #references: SharedReferences;
  readonly #guard: OverlapGuard;
  readonly #flusher: Flusher;
  readonly #dirtyBit: DirtyBit;

  constructor(
    tables: Tables,
    data: GuestData,
    refcounts: Refcounts,
    allocator: Allocator,
    references: SharedReferences,
    guard: OverlapGuard,
    flusher: Flusher,
    dirtyBit: DirtyBit,
  ) {
    this.#tables = tables;
    this.#data = data;
    this.#refcounts = refcounts;
    this.#allocator = allocator;
    this.#references = references;
    this.#guard = guard;
    this.#flusher = flusher;
    this.#dirtyBit = dirtyBit;
  }

  /**
   * Expands all that the active L1 table and the snapshots' refer to. `backed`: whether something
   * lies below the disk. Answers how far it is, from 0 to 1. All is durable at its end.
   */
  *expand(snapshots: readonly L1Place[], backed: boolean): Generator<number> {
    const { state } = this.#tables;
    const active = { offset: state.l1TableOffset, size: state.l1Size };
    const total = snapshots.reduce((sum, { size }) => sum + size, active.size);
    const seen = new Set<number>();
    let done = 0;
    for (const l1 of [active, ...snapshots]) {
      const tables = new Map<number, number>();
      for (const { at, table } of this.#references.l2Tables(l1)) tables.set(at - l1.offset, table);
      for (let index = 0; index < l1.size; index++) {
        const table = tables.get(index * L1_ENTRY_SIZE);
        if (table !== undefined && !seen.has(table)) {
          seen.add(table);
          const which = this.#tableAt(table, index, l1 !== active);
          for (const _ of this.#expandTable(which, backed)) yield done / total;
        }
        yield ++done / total;
      }
    }
    this.#flusher.flushCounts();
    if (state.copiedOwed) {
      this.#references.setCopied((cluster) => this.#refcounts.get(cluster) === 1);
      this.#flusher.flushCounts();
      state.copiedOwed = false;
    }
    this.#flusher.flushAll();
  }

  /** Whether an entry of the active L1 table's tables or the snapshots' is of a compressed cluster. */
  findCompressed(snapshots: readonly L1Place[]): boolean {
    const { geometry, state } = this.#tables;
    const { l2Entries, l2EntrySize } = geometry;
    for (const l1 of [{ offset: state.l1TableOffset, size: state.l1Size }, ...snapshots]) {
      for (const { table } of this.#references.l2Tables(l1)) {
        for (let index = 0; index < l2Entries; index++) {
          this.#tables.read(table + index * l2EntrySize);
          if (isCompressed(this.#tables.high)) return true;
        }
      }
    }
    return false;
  }

  /** A table that several L1 tables have is at the same index in all of them. */
  #tableAt(offset: number, l1Index: number, inactive: boolean): L2Table {
    const shares = this.#countOf(offset);
    if (shares === 0) throw this.#guard.corrupt('an L2 table has no reference count', offset);
    return { offset, guest: l1Index * this.#tables.geometry.l2Coverage, shares, inactive };
  }

  /** Yields after each cluster of zeroes. */
  *#expandTable(table: L2Table, backed: boolean): Generator<void> {
    const { clusterSize, l2Entries, l2EntrySize } = this.#tables.geometry;
    for (let index = 0; index < l2Entries; index++) {
      const at = table.offset + index * l2EntrySize;
      this.#tables.read(at);
      const { low, high } = this.#tables;
      if (isCompressed(high) || !isZero(low)) continue;
      const host = hostOffsetOf(low, high);
      const guest = table.guest + index * clusterSize;
      if (host % clusterSize !== 0) {
        throw this.#guard.corrupt('L2 entry with an unaligned offset', at);
      }
      // Where others have its cluster too, that may be data to them.
      const own = host !== 0 && this.#countOf(host) === table.shares;
      if (own) {
        this.#guard.check(host / clusterSize, 1);
        this.#data.writeZeroes(host, guest, clusterSize);
        this.#name(at, host, table);
        yield;
        continue;
      }
      if (backed) this.#name(at, this.#allocate(table, guest), table);
      else this.#tables.write(at, 0, 0, RANK.L2);
      if (host !== 0) this.#letGo(host, table);
      yield;
    }
  }

  /** A host cluster of zeroes with a reference for each of the table's. */
  #allocate({ shares }: L2Table, guest: number): number {
    const run = this.#allocator.allocate(1);
    const offset = run.first * this.#tables.geometry.clusterSize;
    try {
      this.#data.writeZeroes(offset, guest, this.#tables.geometry.clusterSize);
      if (shares > 1) this.#refcounts.add(run.first, 1, shares - 1);
    } catch (error) {
      this.#allocator.undo(run);
      throw error;
    }
    return offset;
  }

  #name(at: number, host: number, { shares }: L2Table): void {
    const high = withCopied(copiedHigh(host), shares === 1);
    this.#tables.write(at, hostLow(host), high, RANK.L2);
  }

  #letGo(host: number, { shares, inactive }: L2Table): void {
    if (inactive) {
      this.#dirtyBit.set();
      this.#tables.state.copiedOwed = true;
    }
    const cluster = host / this.#tables.geometry.clusterSize;
    for (let n = 0; n < shares; n++) this.#allocator.free(cluster, 1);
  }

  #countOf(offset: number): number {
    const { clusterSize } = this.#tables.geometry;
    return this.#refcounts.get(alignDown(offset, clusterSize) / clusterSize);
  }
}
