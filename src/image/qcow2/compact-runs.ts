/**
 * Compressed data that is to leave its place: pieces of whole sectors, which lie side by side and may reach from
 * one host cluster into the next. They are packed anew, in their order, into runs of free clusters.
 */
import { SECTOR_SIZE } from '../extent.js';
import { eachL2Table } from './compact-references.js';
import type { CompactState } from './compact-state.js';
import type { SectorMove } from './compact-copy.js';
import { compressedOffsetOf, decodeCompressed, isCompressed, Piece } from './l2.js';
import { largestCount } from './refcount-compare.js';
import { TableReader } from './table-reader.js';

/** Compressed data of one guest cluster. */
export interface CompressedRun {
  readonly offset: number;
  /** The sectors that it lies in, [first, end). */
  readonly first: number;
  end: number;
  /** How often it is referred to. */
  references: number;
}

/** Where a run goes. */
export interface RunPlace {
  readonly run: CompressedRun;
  /** The first sector there. */
  readonly to: number;
}

/** The runs that reach past cluster `cluster`, but not past `end`, in order. */
export function gatherRuns(state: CompactState, cluster: number, end: number): CompressedRun[] {
  const { storage, geometry, counts } = state;
  const { clusterSize, l2EntrySize } = geometry;
  const perCluster = clusterSize / SECTOR_SIZE;
  const runs = new Map<number, CompressedRun>();
  const reader = new TableReader(storage);
  const piece = new Piece();
  for (const _ of eachL2Table(state, (table) => {
    const references = counts.count(table / clusterSize);
    reader.forEachBlock(table, clusterSize, (length) => {
      const { view } = reader.buffer;
      for (let at = 0; at < length; at += l2EntrySize) {
        const high = view.getUint32(at);
        if (!isCompressed(high)) continue;
        const low = view.getUint32(at + 4);
        const offset = compressedOffsetOf(geometry, low, high);
        decodeCompressed(geometry, false, low, high, piece);
        const first = Math.floor(offset / SECTOR_SIZE);
        const stop = Math.ceil((offset + piece.hostLength) / SECTOR_SIZE);
        if (stop <= cluster * perCluster || stop > end * perCluster) continue;
        const known = runs.get(offset);
        if (known === undefined) runs.set(offset, { offset, first, end: stop, references });
        else {
          known.end = Math.max(known.end, stop);
          known.references += references;
        }
      }
    });
  }));
  return [...runs.values()].sort((a, b) => a.offset - b.offset);
}

/**
 * Packs runs into `holes`, free clusters in order, of which `spared` are to be left. Null where they do not
 * fit.
 */
export function packRuns(
  { geometry }: CompactState,
  runs: readonly CompressedRun[],
  holes: readonly number[],
  spared: number,
): { places: RunPlace[]; used: ReadonlyMap<number, number> } | null {
  const perCluster = geometry.clusterSize / SECTOR_SIZE;
  const most = largestCount(geometry.refcountBits);
  const places: RunPlace[] = [];
  /** References of the clusters that are used. */
  const used = new Map<number, number>();
  let hole = 0;
  let areaEnd = 0;
  let to = 0;
  /** Where what was placed last ended. */
  let sourceEnd = -1;
  const nextArea = (): boolean => {
    if (hole >= holes.length) return false;
    to = holes[hole]! * perCluster;
    while (hole + 1 < holes.length && holes[hole + 1] === holes[hole]! + 1) hole++;
    areaEnd = (holes[hole++]! + 1) * perCluster;
    sourceEnd = -1;
    return true;
  };
  const hasRoom = (first: number, end: number, references: number): boolean => {
    for (let at = Math.floor(first / perCluster); at * perCluster < end; at++) {
      if ((used.get(at) ?? 0) + references > most) return false;
    }
    return true;
  };
  for (const run of runs) {
    const length = run.end - run.first;
    let start: number;
    for (;;) {
      // What lies in the same sectors stays together.
      const overlap = sourceEnd > run.first ? sourceEnd - run.first : 0;
      start = to - overlap;
      if (start + length <= areaEnd && hasRoom(start, start + length, run.references)) break;
      const clusterEnd = Math.ceil(to / perCluster) * perCluster;
      if (start + length <= areaEnd && clusterEnd > to) [to, sourceEnd] = [clusterEnd, -1];
      else if (!nextArea()) return null;
    }
    places.push({ run, to: start });
    to = Math.max(to, start + length);
    sourceEnd = Math.max(sourceEnd, run.end);
    for (let at = Math.floor(start / perCluster); at * perCluster < start + length; at++) {
      used.set(at, (used.get(at) ?? 0) + run.references);
    }
  }
  return holes.length - used.size >= spared ? { places, used } : null;
}

/** What is to be copied, in runs of sectors that keep their distance. */
export function sectorMoves(places: readonly RunPlace[]): SectorMove[] {
  const moves: { from: number; to: number; count: number }[] = [];
  for (const { run, to } of places) {
    const last = moves.at(-1);
    const from = run.first;
    if (last !== undefined && from - last.from === to - last.to && from <= last.from + last.count) {
      last.count = Math.max(last.count, run.end - last.from);
    } else moves.push({ from, to, count: run.end - run.first });
  }
  return moves;
}
