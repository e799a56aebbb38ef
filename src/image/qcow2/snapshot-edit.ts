/**
 * Taking, deleting, renaming snapshots, and reverting to one. With the reservation, alone: nobody reads
 * or writes meanwhile.
 *
 * COPIED flags and counts cannot change together on disk: the dirty bit covers the time between, so
 * that a crash is repaired on opening. In version 2, which has no such bit, the flags go first when
 * counts rise, and last when they fall: what a crash can leave is COPIED clear where the count is 1,
 * which costs a copy. The snapshot table, or the L1 table, is written whole somewhere else, and one
 * write of the header switches to it.
 */
import { IoBuffer } from '../../sys/io-buffer.js';
import type { SnapshotOptions } from '../writer.js';
import type { Allocator } from './allocator.js';
import type { DirtyBit } from './dirty-bit.js';
import type { Flusher } from './flush.js';
import { l1EntriesFor } from './geometry.js';
import { setActiveDisk, setSnapshots } from './header-edit.js';
import { withCopied } from './l2.js';
import type { OverlapGuard } from './overlap.js';
import type { Refcounts } from './refcount.js';
import type { L1Place, SharedReferences } from './shared-references.js';
import {
  checkName,
  completedEntry,
  newEntry,
  type RawEntry,
  readRawEntries,
  renamedEntry,
  tableOf,
} from './snapshot-table.js';
import type { Snapshot } from './snapshots.js';
import type { Tables } from './tables.js';

const L1_ENTRY_SIZE = 8;

export class SnapshotEditor {
  readonly #tables: Tables;
  readonly #refcounts: Refcounts;
  readonly #allocator: Allocator;
  readonly #references: SharedReferences;
  readonly #flusher: Flusher;
  readonly #dirtyBit: DirtyBit;
  readonly #guard: OverlapGuard;

  constructor(
    tables: Tables,
    refcounts: Refcounts,
    allocator: Allocator,
    references: SharedReferences,
    flusher: Flusher,
    dirtyBit: DirtyBit,
    guard: OverlapGuard,
  ) {
    this.#tables = tables;
    this.#refcounts = refcounts;
    this.#allocator = allocator;
    this.#references = references;
    this.#flusher = flusher;
    this.#dirtyBit = dirtyBit;
    this.#guard = guard;
  }

  /**
   * Takes a snapshot of the active disk. `others`: those there are. `vmStateSize`: bytes of VM state
   * behind the disk, for it to have.
   */
  create(
    name: string,
    others: readonly Snapshot[],
    options: SnapshotOptions = {},
    vmStateSize = 0,
  ): void {
    const { state } = this.#tables;
    const id = String(others.reduce((most, other) => Math.max(most, numberOf(other.id)), 0) + 1);
    const entries = readRawEntries(this.#tables);
    const active = { offset: state.l1TableOffset, size: state.l1Size };
    const { date = now(), vmClock = 0n, icount = null } = options;
    const times = { date, vmClock, icount };
    const fields = { id, name, l1Size: active.size, diskSize: state.size, vmStateSize, ...times };
    // Sizes are refused before anything changes.
    tableOf([...entries, newEntry({ ...fields, l1TableOffset: 0 })]);
    this.#flusher.flushCounts();
    this.#dirtyBit.set();
    const copy = active.size === 0 ? 0 : this.#copyL1(active, active.size);
    this.#dirtyBit.cover(() => {
      const entry = newEntry({ ...fields, l1TableOffset: copy });
      this.#share(active, copy, () =>
        this.#switchTable([...entries, entry], () => state.appendView()),
      );
    });
    this.#flusher.flushAll();
  }

  /** Lets what `active` refers to belong to its copy as well, once `use` has run. */
  #share(active: L1Place, copy: number, use: () => void): void {
    let added = false;
    try {
      this.#references.setCopied(() => false);
      this.#flusher.flushCounts();
      this.#references.add(active);
      added = true;
      this.#flusher.flushCounts();
      use();
    } catch (error) {
      if (this.#tables.state.failed !== 0) throw error;
      // As it was: a count has no room, or the host has not. The flags are owed.
      if (added) this.#references.remove(active);
      this.#freeL1(copy, active.size);
      throw error;
    }
  }

  /** Does what an operation that failed has left undone, if the host lets it now. */
  settle(): void {
    const { state } = this.#tables;
    if (!state.copiedOwed) return;
    this.#restoreCopied();
    this.#flusher.flushCounts();
    state.copiedOwed = false;
  }

  delete(index: number, { l1TableOffset, l1Size }: Snapshot): void {
    const { state } = this.#tables;
    const entries = readRawEntries(this.#tables);
    const left = entries.filter((_, place) => place !== index);
    this.#flusher.flushCounts();
    this.#dirtyBit.cover(() => {
      this.#switchTable(left, () => state.removeView(index));
      this.#references.remove({ offset: l1TableOffset, size: l1Size });
      this.#freeL1(l1TableOffset, l1Size);
      this.#flusher.flushCounts();
      this.#restoreCopied();
    });
    this.#flusher.flushAll();
  }

  rename(index: number, name: string): void {
    checkName(name);
    const entries = readRawEntries(this.#tables);
    entries[index] = renamedEntry(entries[index]!, name);
    this.#flusher.flushCounts();
    this.#switchTable(entries, () => {});
    this.#flusher.flush();
  }

  /** Gives each entry the extra data that version 3 asks for. */
  complete(snapshots: readonly Snapshot[]): void {
    const entries = readRawEntries(this.#tables);
    const completed = entries.map((entry, index) => completedEntry(entry, snapshots[index]!));
    if (completed.every((entry, index) => entry === entries[index])) return;
    this.#flusher.flushCounts();
    this.#switchTable(completed, () => {});
    this.#flusher.flushAll();
  }

  /** Makes the active disk what the snapshot is. */
  revertTo({ l1TableOffset, l1Size, diskSize }: Snapshot): void {
    const { geometry, state } = this.#tables;
    const source = { offset: l1TableOffset, size: l1Size };
    const old = { offset: state.l1TableOffset, size: state.l1Size };
    // As much as the disk needs, and the VM state that the snapshot has behind it.
    const entries = Math.max(1, l1Size, l1EntriesFor(geometry, diskSize));
    this.#flusher.flushCounts();
    const copy = this.#copyL1(source, entries);
    try {
      this.#references.add(source);
      this.#flusher.flushCounts();
    } catch (error) {
      this.#freeL1(copy, entries);
      throw error;
    }
    this.#dirtyBit.cover(() => {
      this.#switchDisk({ size: diskSize, l1TableOffset: copy, l1Size: entries });
      this.#guard.gather();
      this.#references.remove(old);
      this.#freeL1(old.offset, old.size);
      this.#flusher.flushCounts();
      this.#restoreCopied();
    });
    this.#flusher.flushAll();
  }

  #switchDisk(disk: { size: number; l1TableOffset: number; l1Size: number }): void {
    const { state, storage } = this.#tables;
    setActiveDisk(storage, disk);
    this.#flusher.sync();
    state.l1TableOffset = disk.l1TableOffset;
    state.l1Size = disk.l1Size;
    state.size = disk.size;
    state.pendingSize = 0;
    state.bumpGeneration();
  }

  /** Lets go of an L1 table that nothing durable names. */
  #freeL1(offset: number, entries: number): void {
    // One without entries has no cluster that it could say is its own.
    if (offset === 0 || entries === 0) return;
    const { clusterSize } = this.#tables.geometry;
    const clusters = Math.ceil((entries * L1_ENTRY_SIZE) / clusterSize);
    this.#tables.forget(offset, clusters * clusterSize);
    this.#guard.disclaim(offset / clusterSize, clusters);
    this.#allocator.release(offset / clusterSize, clusters);
  }

  /** COPIED in the active tables exactly where the count is 1. */
  #restoreCopied(): void {
    this.#references.setCopied((cluster) => this.#refcounts.get(cluster) === 1);
  }

  /** A new L1 table of `entries` entries with the tables of another, as shared ones. In the file. */
  #copyL1(source: L1Place, entries: number): number {
    const { clusterSize } = this.#tables.geometry;
    const clusters = Math.ceil((entries * L1_ENTRY_SIZE) / clusterSize);
    const table = new IoBuffer(clusters * clusterSize);
    for (const { at, low, high } of this.#references.l2Tables(source)) {
      table.view.setUint32(at - source.offset, withCopied(high, false));
      table.view.setUint32(at - source.offset + 4, low);
    }
    return this.#allocator.makeTable(clusters, (place) =>
      this.#tables.writeTable(place, table, table.length),
    );
  }

  /** Writes the snapshot table anew, and lets the header name it. Durable when it returns. */
  #switchTable(entries: readonly RawEntry[], changeViews: () => void): void {
    const { geometry, state, storage } = this.#tables;
    const table = tableOf(entries);
    const old = { offset: state.snapshotsOffset, size: state.snapshotTableSize };
    const clusters = Math.ceil(table.length / geometry.clusterSize);
    let offset = 0;
    if (clusters === 0) this.#flusher.flushCounts();
    else {
      offset = this.#allocator.makeTable(clusters, (place) => {
        this.#tables.writeTable(place, table, table.length);
        this.#flusher.flushCounts();
      });
    }
    setSnapshots(storage, { nbSnapshots: entries.length, snapshotsOffset: offset });
    this.#flusher.sync();
    state.snapshotsOffset = offset;
    state.snapshotTableSize = table.length;
    changeViews();
    state.bumpGeneration();
    if (old.size > 0) this.#allocator.freeTable(old.offset, old.size);
  }
}

function now(): { sec: number; nsec: number } {
  const ms = Date.now();
  return { sec: Math.floor(ms / 1000), nsec: (ms % 1000) * 1_000_000 };
}

/** As QEMU numbers snapshots; ids that are no numbers count as none. */
function numberOf(id: string): number {
  return /^\d+$/.test(id) ? Number(id) : 0;
}
