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

/** What an entry's halves become, the lower one first; undefined where it stays as it is. */
type ChangeEntry = (low: number, high: number) => [number, number] | undefined;

/** Changes the entries, one every `step` bytes, of the first `length` bytes; answers the bytes that differ then. */
function patchEntries(
  { view }: Pick<IoBuffer, 'view'>,
  length: number,
  step: number,
  change: ChangeEntry,
): { first: number; end: number } {
  const changed = { first: length, end: 0 };
  for (let at = 0; at < length; at += step) {
    const entry = change(view.getUint32(at + 4), view.getUint32(at));
    if (entry === undefined) continue;
    view.setUint32(at, entry[1]);
    view.setUint32(at + 4, entry[0]);
    changed.first = Math.min(changed.first, at);
    changed.end = at + ENTRY_SIZE;
  }
  return changed;
}

/** Of entries with the offset of a host cluster: in L1 tables and bitmap tables, and most of L2 tables. */
function movingClusters({ geometry }: CompactState, { cells, first, end }: Moves): ChangeEntry {
  const { clusterSize } = geometry;
  return (low, high) => {
    const cluster = hostOffsetOf(low, high) / clusterSize;
    if (cluster < first || cluster >= end) return undefined;
    const place = cells.get(cluster);
    return place === undefined ? undefined : withHostOffset(low, high, place * clusterSize);
  };
}

/** Changes the entries in the `length` bytes of L2 table in `buffer`; answers the bytes that differ then. */
export function patchL2(
  state: CompactState,
  buffer: Pick<IoBuffer, 'view'>,
  length: number,
  moves: Moves,
): { first: number; end: number } {
  const { geometry, header } = state;
  // Those name clusters of the data file.
  if (hasBit(header.incompatibleFeatures, INCOMPATIBLE.DATA_FILE)) return { first: length, end: 0 };
  const ofCluster = movingClusters(state, moves);
  return patchEntries(buffer, length, geometry.l2EntrySize, (low, high) => {
    if (!isCompressed(high)) return ofCluster(low, high);
    const offset = moves.runs.get(compressedOffsetOf(geometry, low, high));
    return offset === undefined ? undefined : withCompressedOffset(geometry, high, offset);
  });
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
  const ofCluster = movingClusters(state, moves);
  for (const table of tables) {
    if (!isL1(table) && table.kind !== 'bitmap') continue;
    reader.forEachBlock(table.offset, table.size, (length, position) => {
      const { first, end } = patchEntries(reader.buffer, length, ENTRY_SIZE, ofCluster);
      if (end > first) storage.write(reader.buffer, first, end - first, position + first);
    });
  }
}
