/**
 * Lets all that refers to moved clusters refer to their new places. Entries are changed one by one in tables
 * that stay where they are: each lies in one sector, and is right before and after. What it said before and
 * what it says then must both be counted and durable meanwhile.
 */
import type { IoBuffer } from '../../sys/io-buffer.js';
import type { Steps } from '../steps.js';
import { ClusterSet } from '../cluster-set.js';
import type { CompactState, MovableTable } from './compact-state.js';
import { hasBit } from './features.js';
import {
  compressedOffsetOf,
  hostOffsetOf,
  isCompressed,
  withCompressedOffset,
  withHostOffset,
} from './l2.js';
import { INCOMPATIBLE } from './layout.js';
import { TableReader } from './table-reader.js';

const ENTRY_SIZE = 8;

/** Where things are moved to. */
export interface Moves {
  /** Clusters as wholes, by the cluster that they leave. */
  readonly cells: ReadonlyMap<number, number>;
  /** Compressed data by its offset: the new one. */
  readonly runs: ReadonlyMap<number, number>;
  /** All of `cells` lie in [first, end). */
  readonly first: number;
  readonly end: number;
}

/** Changes the entries in the `length` bytes of L2 table in `buffer`; answers the bytes that differ then. */
export function patchL2(
  { geometry, header }: CompactState,
  { view }: Pick<IoBuffer, 'view'>,
  length: number,
  moves: Moves,
): { first: number; end: number } {
  const { clusterSize, l2EntrySize } = geometry;
  const { cells, runs, first, end } = moves;
  const changed = { first: length, end: 0 };
  // Those name clusters of the data file.
  if (hasBit(header.incompatibleFeatures, INCOMPATIBLE.DATA_FILE)) return changed;
  for (let at = 0; at < length; at += l2EntrySize) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if (low === 0 && high === 0) continue;
    let entry: [number, number];
    if (isCompressed(high)) {
      const offset = runs.get(compressedOffsetOf(geometry, low, high));
      if (offset === undefined) continue;
      entry = withCompressedOffset(geometry, high, offset);
    } else {
      const cluster = hostOffsetOf(low, high) / clusterSize;
      if (cluster < first || cluster >= end) continue;
      const place = cells.get(cluster);
      if (place === undefined) continue;
      entry = withHostOffset(low, high, place * clusterSize);
    }
    view.setUint32(at, entry[1]);
    view.setUint32(at + 4, entry[0]);
    changed.first = Math.min(changed.first, at);
    changed.end = at + 8;
  }
  return changed;
}

/** Entries of 8 bytes with a host offset: of L1 tables and bitmap tables. */
function patchOffsets(
  { geometry }: CompactState,
  { view }: Pick<IoBuffer, 'view'>,
  length: number,
  { cells, first, end }: Moves,
): { first: number; end: number } {
  const changed = { first: length, end: 0 };
  for (let at = 0; at < length; at += ENTRY_SIZE) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    const cluster = hostOffsetOf(low, high) / geometry.clusterSize;
    if (cluster < first || cluster >= end) continue;
    const place = cells.get(cluster);
    if (place === undefined) continue;
    const entry = withHostOffset(low, high, place * geometry.clusterSize);
    view.setUint32(at, entry[1]);
    view.setUint32(at + 4, entry[0]);
    changed.first = Math.min(changed.first, at);
    changed.end = at + ENTRY_SIZE;
  }
  return changed;
}

export function isL1({ kind }: MovableTable): boolean {
  return kind === 'l1' || kind === 'snapshot l1';
}

/** Visits each L2 table of all L1 tables once: its offset. Yields the part of the tables that is done. */
export function* eachL2Table(state: CompactState, visit: (table: number) => void): Steps<void> {
  const { storage, geometry, tables, header } = state;
  if (hasBit(header.incompatibleFeatures, INCOMPATIBLE.DATA_FILE)) return;
  const reader = new TableReader(storage);
  const seen = new ClusterSet();
  const l1Tables = tables.filter(isL1);
  for (const [done, { offset, size }] of l1Tables.entries()) {
    for (const { length } of reader.blocks(offset, size)) {
      for (let at = 0; at < length; at += ENTRY_SIZE) {
        const { view } = reader.buffer;
        const table = hostOffsetOf(view.getUint32(at + 4), view.getUint32(at));
        if (table !== 0 && seen.add(table / geometry.clusterSize)) visit(table);
      }
      yield done / l1Tables.length;
    }
  }
}

/** Changes all entries in the file. Tables that are moved themselves stay as they are in their old place. */
export function patchAll(state: CompactState, moves: Moves): void {
  const { storage, geometry, tables } = state;
  const { clusterSize } = geometry;
  const l2 = new TableReader(storage);
  for (const _ of eachL2Table(state, (table) => {
    if (moves.cells.has(table / clusterSize)) return;
    l2.forEachBlock(table, clusterSize, (length, position) => {
      const { first, end } = patchL2(state, l2.buffer, length, moves);
      if (end > first) storage.write(l2.buffer, first, end - first, position + first);
    });
  }));
  const reader = new TableReader(storage);
  for (const table of tables) {
    if (!isL1(table) && table.kind !== 'bitmap') continue;
    reader.forEachBlock(table.offset, table.size, (length, position) => {
      const { first, end } = patchOffsets(state, reader.buffer, length, moves);
      if (end > first) storage.write(reader.buffer, first, end - first, position + first);
    });
  }
}
