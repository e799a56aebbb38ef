/**
 * The references of a whole L1 table, as taking, deleting and reverting to snapshots change them: counts
 * up and down, and the COPIED flags of the active disk, which say where a count is 1.
 */
import { RANK } from '../../shared/slice-cache.js';
import type { Allocator } from './allocator.js';
import { hostOffsetOf, isCompressed, isCopied, withCopied } from './l2.js';
import type { L2Tables } from './l2-tables.js';
import type { Refcounts } from './refcount.js';
import type { Tables } from './tables.js';

const L1_ENTRY_SIZE = 8;

/** An L1 table. `size`: entries. */
export interface L1Place {
  readonly offset: number;
  readonly size: number;
}

export class SharedReferences {
  readonly #tables: Tables;
  readonly #refcounts: Refcounts;
  readonly #allocator: Allocator;
  readonly #l2: L2Tables;

  constructor(tables: Tables, refcounts: Refcounts, allocator: Allocator, l2: L2Tables) {
    this.#tables = tables;
    this.#refcounts = refcounts;
    this.#allocator = allocator;
    this.#l2 = l2;
  }

  /** One more reference for all that the L1 table refers to; where one cannot be, none is added. */
  add(l1: L1Place): void {
    let added = 0;
    try {
      this.#walk(l1, (first, count) => {
        for (let cluster = first; cluster < first + count; cluster++, added++) {
          this.#refcounts.add(cluster, 1, 1);
        }
      });
    } catch (error) {
      this.#walk(l1, (first, count) => {
        const n = Math.min(count, added);
        if (n > 0) this.#refcounts.add(first, n, -1);
        added -= n;
      });
      throw error;
    }
  }

  /** One reference less. Nothing durable may refer to the table any more. */
  remove(l1: L1Place): void {
    this.#walk(l1, (first, count) => this.#allocator.release(first, count));
  }

  /** The L2 tables of an L1 table, with the places of their entries in it. */
  *l2Tables(l1: L1Place): Generator<{ at: number; table: number; high: number; low: number }> {
    for (let index = 0; index < l1.size; index++) {
      const at = l1.offset + index * L1_ENTRY_SIZE;
      this.#tables.read(at);
      const { low, high } = this.#tables;
      const table = hostOffsetOf(low, high);
      if (table % this.#tables.geometry.clusterSize !== 0 || table > Number.MAX_SAFE_INTEGER) {
        throw this.#tables.corrupt('L2 table offset is not cluster-aligned', at);
      }
      if (table !== 0) yield { at, table, low, high };
    }
  }

  /** Sets COPIED in the active tables where `copied` says so, and clears it elsewhere. */
  setCopied(copied: (cluster: number) => boolean): void {
    const { geometry, state } = this.#tables;
    const { clusterSize, l2Entries, l2EntrySize } = geometry;
    const active = { offset: state.l1TableOffset, size: state.l1Size };
    for (const { at, table, low, high } of this.l2Tables(active)) {
      const own = copied(table / clusterSize);
      for (let index = 0; index < l2Entries; index++) {
        this.#copyFlag(table + index * l2EntrySize, copied);
      }
      if (own !== isCopied(high)) this.#tables.write(at, low, withCopied(high, own), RANK.L1);
    }
  }

  #copyFlag(at: number, copied: (cluster: number) => boolean): void {
    const tables = this.#tables;
    tables.read(at);
    const { low, high } = tables;
    const host = hostOffsetOf(low, high);
    if (isCompressed(high) || host === 0) return;
    const own = copied(host / tables.geometry.clusterSize);
    if (own !== isCopied(high)) tables.write(at, low, withCopied(high, own), RANK.L2);
  }

  /** Every reference of an L1 table: its L2 tables, and what they refer to. Runs of clusters. */
  #walk(l1: L1Place, visit: (first: number, count: number) => void): void {
    const { clusterSize, l2Entries, l2EntrySize } = this.#tables.geometry;
    const run = { first: 0, count: 0 };
    const put = (first: number, count: number): void => {
      if (first === run.first + run.count) {
        run.count += count;
        return;
      }
      if (run.count > 0) visit(run.first, run.count);
      run.first = first;
      run.count = count;
    };
    for (const { table } of this.l2Tables(l1)) {
      for (let index = 0; index < l2Entries; index++) {
        this.#tables.read(table + index * l2EntrySize);
        const clusters = this.#l2.clustersOf(this.#tables.low, this.#tables.high);
        if (clusters !== null) put(clusters.offset / clusterSize, clusters.count);
      }
      // The table last: while it is walked, it is there.
      put(table / clusterSize, 1);
    }
    if (run.count > 0) visit(run.first, run.count);
  }
}
