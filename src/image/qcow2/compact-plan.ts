/**
 * What is moved where: the last clusters in use go into the first free ones, until there is no free one before
 * the last in use. All that is decided at once goes to clusters that are free already, so that the moves of
 * a batch do not depend on each other.
 */
import { alignDown, divCeil } from '../../codec/bits.js';
import { SECTOR_SIZE } from '../extent.js';
import { clustersOf, type CompactState, isCell, usedClusters } from './compact-state.js';
import { type CompressedRun, gatherRuns, packRuns, type RunPlace } from './compact-runs.js';
import { PAGE_SIZE, USE, useIn } from './reference-counts.js';

/** Clusters of a batch at most: what is known of each takes memory. */
const MOST_CLUSTERS = 1 << 18;

export interface Batch {
  /** Clusters that leave as wholes, in order, and where they go. */
  readonly sources: readonly number[];
  readonly places: readonly number[];
  readonly runs: readonly RunPlace[];
  /** References that clusters get by runs. */
  readonly runCounts: ReadonlyMap<number, number>;
}

/** How many clusters the image needs, all of them at the file's beginning. */
export function leastEnd(state: CompactState): number {
  const { perBlock, geometry, refcountTableClusters } = state;
  const perTable = geometry.clusterSize / 8;
  const used = usedClusters(state);
  let end = used + 2;
  for (let last = 0; last !== end; ) {
    last = end;
    const blocks = divCeil(end, perBlock);
    end = used + blocks + Math.min(refcountTableClusters, divCeil(blocks, perTable));
  }
  return end;
}

/** Where the image ends: behind its last cluster that is in use, but for blocks that count none before. */
export function endOf(state: CompactState): number {
  const { counts, blocks, perBlock, geometry } = state;
  let end = 1;
  const starts = counts.pageStarts();
  for (let n = starts.length - 1; n >= 0 && end === 1; n--) {
    const page = counts.page(starts[n]!)!;
    for (let at = PAGE_SIZE - 1; at >= 0 && end === 1; at--) {
      const cluster = starts[n]! + at;
      const use = useIn(page[at]!);
      if (use === USE.NONE) continue;
      if (use === USE.REFCOUNTS && !state.bound.has(cluster)) continue;
      end = cluster + 1;
    }
  }
  for (let index = 0; index * perBlock < end && index < blocks.length; index++) {
    if (blocks[index] !== 0) end = Math.max(end, blocks[index]! / geometry.clusterSize + 1);
  }
  return end;
}

export class CompactPlanner {
  readonly #state: CompactState;
  readonly #most: number;
  /** Blocks from that index on are not needed in the end. */
  readonly #needed: number;
  readonly #blockAt = new Map<number, number>();
  /** No cluster before is free, or is worth looking at. */
  #low = 1;
  /** All in use from here on stays where it is. */
  #high: number;

  /** `end`: where the image is to end. `most`: clusters of a batch. */
  constructor(state: CompactState, end: number, most: number) {
    const { blocks, geometry, counts, perBlock } = state;
    this.#state = state;
    this.#most = Math.min(most, MOST_CLUSTERS);
    this.#needed = divCeil(end, perBlock);
    this.#high = counts.end;
    for (const [index, offset] of blocks.entries()) {
      if (offset !== 0) this.#blockAt.set(offset / geometry.clusterSize, index);
    }
  }

  /** The index of the block that lies there. */
  blockAt(cluster: number): number | undefined {
    return this.#blockAt.get(cluster);
  }

  /** What is moved next; null: nothing can be any more. */
  next(): Batch | null {
    const sources: number[] = [];
    const holes: number[] = [];
    let [low, high] = [this.#low, this.#high];
    while (sources.length < this.#most) {
      const source = this.#sourceBefore(high);
      const hole = this.#holeFrom(low, source);
      if (hole < 0) break;
      sources.push(source);
      holes.push(hole);
      [high, low] = [source, hole + 1];
    }
    return this.#fit(sources, holes);
  }

  /** Takes fewer of the sources, the last ones first, until there is room. */
  #fit(sources: number[], holes: readonly number[]): Batch | null {
    const { compressed } = this.#state;
    const end = this.#high;
    let gathered: CompressedRun[] | null = null;
    while (sources.length > 0) {
      const last = sources.at(-1)!;
      const cells = sources.filter((cluster) => !compressed.has(cluster)).reverse();
      let packed: ReturnType<typeof packRuns> = { places: [], used: new Map() };
      if (cells.length < sources.length) {
        gathered ??= gatherRuns(this.#state, last, end);
        const perCluster = this.#state.geometry.clusterSize / SECTOR_SIZE;
        const runs = gathered.filter((run) => run.end > last * perCluster);
        packed = packRuns(this.#state, runs, holes, cells.length);
      }
      if (packed === null) {
        sources.length -= Math.max(1, sources.length >> 3);
        continue;
      }
      const { places: runs, used } = packed;
      const left = holes.filter((hole) => !used.has(hole));
      this.#high = last;
      this.#low = left[cells.length] ?? holes.at(-1)! + 1;
      return { sources: cells, places: left.slice(0, cells.length), runs, runCounts: used };
    }
    return null;
  }

  /** The last cluster before `end` that can go; -1: there is none. */
  #sourceBefore(end: number): number {
    const { counts, bound } = this.#state;
    for (let cluster = end - 1; cluster > 0; cluster--) {
      const page = counts.page(alignDown(cluster, PAGE_SIZE));
      if (page === undefined) {
        cluster = alignDown(cluster, PAGE_SIZE);
        continue;
      }
      if (page[cluster % PAGE_SIZE] === 0 || bound.has(cluster)) continue;
      const block = this.#blockAt.get(cluster);
      if (block === undefined || block < this.#needed) return cluster;
    }
    return -1;
  }

  /** The first free cluster from `from` on and before `end`; -1: there is none. */
  #holeFrom(from: number, end: number): number {
    const { counts, blocks, perBlock } = this.#state;
    for (let cluster = from; cluster < end; cluster++) {
      if (counts.word(cluster) !== 0) continue;
      if ((blocks[Math.floor(cluster / perBlock)] ?? 0) !== 0) return cluster;
      // Nothing there is counted.
      cluster = (Math.floor(cluster / perBlock) + 1) * perBlock - 1;
    }
    return -1;
  }
}

/** Where a table goes: its index among the state's, and its first cluster there. */
export interface TablePlan {
  readonly index: number;
  readonly to: number;
}

/**
 * Places for the tables that do not lie before `end`, and what has to leave these places first, and goes where.
 */
export function planTables(
  state: CompactState,
  end: number,
): { tables: TablePlan[]; sources: number[]; places: number[] } {
  const { tables, geometry, counts, blocks, perBlock, limit } = state;
  const { clusterSize } = geometry;
  const reserved = new Set<number>();
  const isFree = (cluster: number) =>
    counts.word(cluster) === 0 &&
    !reserved.has(cluster) &&
    (blocks[Math.floor(cluster / perBlock)] ?? 0) !== 0;
  const canMove = (cluster: number) =>
    isFree(cluster) || (!reserved.has(cluster) && isCell(state, cluster));
  const find = (length: number, before: number, fits: (cluster: number) => boolean): number => {
    let run = 0;
    for (let cluster = 1; cluster < before; cluster++) {
      run = fits(cluster) ? run + 1 : 0;
      if (run === length) return cluster - length + 1;
    }
    return -1;
  };
  const planned: TablePlan[] = [];
  for (const [index, table] of tables.entries()) {
    const first = table.offset / clusterSize;
    const length = clustersOf(table, clusterSize);
    if (first + length <= end) continue;
    const before = Math.min(first, Math.max(end, 1));
    let to = find(length, before, isFree);
    if (to < 0) to = find(length, before, canMove);
    if (to < 0) to = find(length, first, canMove);
    if (to < 0) continue;
    for (let n = 0; n < length; n++) reserved.add(to + n);
    planned.push({ index, to });
  }
  const sources = [...reserved].filter((cluster) => isCell(state, cluster)).sort((a, b) => a - b);
  const places: number[] = [];
  for (let cluster = 1; places.length < sources.length; cluster++) {
    if (cluster >= Math.min(limit, blocks.length * perBlock)) return { ...NO_TABLES };
    if (isFree(cluster)) places.push(cluster);
  }
  return { tables: planned, sources, places };
}

const NO_TABLES = { tables: [], sources: [], places: [] };
