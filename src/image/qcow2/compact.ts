/**
 * Compacts an image: what lies at its end goes into the free clusters before, and the file is cut. What is
 * read stays the same, and so do all tables, flags and counts but for the places.
 *
 * Things move in batches, each to clusters that are free when it begins. The order of a batch, with a flush
 * behind each step:
 *
 * 1. the new places are counted as the old ones are, and hold the same bytes;
 * 2. all that refers to the old places refers to the new ones, entry by entry;
 * 3. the old places are free; refcount blocks without use are dropped; then the file is cut.
 *
 * Between, some entries say the one and some the other, and both places have as many counts as all of them
 * together: never too few, and a COPIED flag stays as true as it was. So no dirty bit is needed, in version 2
 * neither, and a crash leaves clusters that leak. Nothing is written to a place that was freed before the
 * entries that let go of it are durable: a later batch comes after step 2's flush.
 */
import { divCeil } from '../../codec/bits.js';
import type { MutableStorage } from '../../storage/storage.js';
import { SECTOR_SIZE } from '../extent.js';
import { type Steps, stepsWithin } from '../steps.js';
import { ClusterCopier } from './compact-copy.js';
import { dropBlocks, makeBlocks, nameBlock, spareBlocks, storeCounts } from './compact-counts.js';
import {
  type Batch,
  CompactPlanner,
  endOf,
  leastEnd,
  planTables,
  type TablePlan,
} from './compact-plan.js';
import { type Moves, patchAll } from './compact-references.js';
import { sectorMoves } from './compact-runs.js';
import {
  clustersOf,
  type CompactSource,
  type CompactState,
  eachCluster,
  extensionOffsetAt,
  type MovableTable,
  readState,
} from './compact-state.js';
import { setL1, setRefcountTable, setSnapshots } from './header-edit.js';
import { BITMAP_DIRECTORY_ENTRY } from './layout.js';
import type { LayerCipher } from './mapping.js';
import { storeOffset } from './refcount-correct.js';
import { USE, useIn } from './reference-counts.js';

/** Bytes of a batch at least: that much more the file may take meanwhile. */
const LEAST_BATCH = 256 << 20;
/** As many times the size of all L2 tables, which are read for each batch. */
const BATCH_PER_TABLES = 8;

export interface CompactOptions {
  /** Nothing is written: only the result is told. */
  readonly dryRun?: boolean;
  /** What guest data is encrypted with; null where it is not. */
  readonly cipher?: LayerCipher | null;
  /** Bytes of a batch. */
  readonly batch?: number;
}

export interface CompactResult {
  /** Bytes of the file before. Of a device, which keeps its size: what of it the image took. */
  readonly before: number;
  /** The same, after. */
  readonly after: number;
  /** Bytes that were moved. */
  readonly moved: number;
}

/**
 * Compacts the image, of which nothing may be wrong: no count too high either. For one thread, and nobody else.
 * Throws 'corrupt' with nothing changed where it is not in order. Ended early by an error that is thrown
 * in, it keeps what is done, and frees what it had counted.
 */
export function compactSteps(
  source: CompactSource,
  options: CompactOptions = {},
): Steps<CompactResult> {
  return new Compaction(source, options).run();
}

class Compaction {
  readonly #source: CompactSource;
  readonly #options: CompactOptions;
  readonly #storage: MutableStorage;
  readonly #dry: boolean;
  #state!: CompactState;
  #copier!: ClusterCopier;
  #moved = 0;

  constructor(source: CompactSource, options: CompactOptions) {
    this.#source = source;
    this.#options = options;
    this.#storage = source.storage;
    this.#dry = options.dryRun === true;
  }

  *run(): Steps<CompactResult> {
    const state = yield* stepsWithin(readState(this.#source), 0, PART.READ);
    this.#state = state;
    this.#copier = new ClusterCopier(state, this.#options.cipher ?? null);
    const { clusterSize } = state.geometry;
    const start = endOf(state);
    const isDevice = Number.isFinite(state.limit);
    const before = isDevice ? start * clusterSize : this.#storage.size();
    const least = leastEnd(state);
    const total = Math.max(1, start - least);
    for (let end = start, last = Number.POSITIVE_INFINITY; end > least && end < last; ) {
      last = end;
      const done = Math.min(1, (start - end) / total);
      const pass = this.#pass(leastEnd(state));
      yield* stepsWithin(pass, PART.READ + done * (1 - PART.READ), 1);
      end = endOf(state);
    }
    if (!this.#dry) this.#finish();
    const end = endOf(state) * clusterSize;
    if (isDevice && !this.#dry && end < before) this.#storage.punch(end, before - end);
    return { before, after: Math.min(before, end), moved: this.#moved };
  }

  /** One round: tables, then everything else until nothing can move. */
  *#pass(end: number): Steps<void> {
    const state = this.#state;
    const { blocks, perBlock, geometry } = state;
    const missing: number[] = [];
    for (let index = 0; index < divCeil(end, perBlock); index++) {
      if (blocks[index] === 0) missing.push(index);
    }
    makeBlocks(state, missing, this.#dry);
    const { tables, sources, places } = planTables(state, end);
    const planner = new CompactPlanner(state, end, this.#clustersOfBatch());
    if (sources.length > 0) {
      yield* stepsWithin(
        this.#batch({ sources, places, runs: [], runCounts: NO_COUNTS }, planner),
        0,
        0,
      );
    }
    this.#moveTables(tables.filter(({ index }) => !isNamedByHeader(state.tables[index]!)));
    this.#moveTables(tables.filter(({ index }) => isNamedByHeader(state.tables[index]!)));
    const mover = new CompactPlanner(state, end, this.#clustersOfBatch());
    const total = Math.max(1, (endOf(state) - end) * geometry.clusterSize);
    const moved = this.#moved;
    for (let batch = mover.next(); batch !== null; batch = mover.next()) {
      const from = Math.min(1, (this.#moved - moved) / total);
      const size = (batch.sources.length + batch.runCounts.size) * geometry.clusterSize;
      yield* stepsWithin(this.#batch(batch, mover), from, Math.min(1, from + size / total));
      this.#cut();
      yield Math.min(1, (this.#moved - moved) / total);
    }
    this.#cut();
  }

  #clustersOfBatch(): number {
    const { counts, geometry } = this.#state;
    const { batch } = this.#options;
    if (batch !== undefined) return Math.max(1, Math.floor(batch / geometry.clusterSize));
    let tables = 0;
    counts.forEach((_, __, use) => {
      if (use === USE.L2_TABLE) tables++;
    });
    const least = Math.ceil(LEAST_BATCH / geometry.clusterSize);
    return Math.max(least, tables * BATCH_PER_TABLES);
  }

  *#batch(batch: Batch, planner: CompactPlanner): Steps<void> {
    const { counts, compressed } = this.#state;
    const { sources, places, runs, runCounts } = batch;
    for (const [n, place] of places.entries()) {
      const word = counts.word(sources[n]!);
      counts.add(place, useIn(word), counts.count(sources[n]!));
    }
    for (const [cluster, n] of runCounts) {
      counts.add(cluster, USE.DATA, n);
      compressed.add(cluster);
    }
    const moves = movesOf(batch);
    const fresh = [...places, ...runCounts.keys()].sort((a, b) => a - b);
    if (!this.#dry) yield* this.#copy(batch, moves, fresh);
    this.#repoint(batch, moves, planner);
    const old = [...sources];
    for (const cluster of sources) counts.release(cluster);
    for (const { run } of runs) old.push(...this.#releaseRun(run));
    if (!this.#dry)
      storeCounts(
        this.#state,
        [...new Set(old)].sort((a, b) => a - b),
      );
    this.#moved += (sources.length + runCounts.size) * this.#state.geometry.clusterSize;
  }

  /** Step 1. */
  *#copy(batch: Batch, moves: Moves, fresh: readonly number[]): Steps<void> {
    const { counts, compressed } = this.#state;
    try {
      storeCounts(this.#state, fresh);
      yield* this.#copier.cells(batch.sources, moves);
      this.#copier.sectors(sectorMoves(batch.runs));
    } catch (error) {
      for (const cluster of fresh) {
        counts.release(cluster);
        compressed.delete(cluster);
      }
      storeCounts(this.#state, fresh);
      this.#storage.flush();
      throw error;
    }
    this.#storage.flush();
  }

  /** Step 2. */
  #repoint({ sources, places }: Batch, moves: Moves, planner: CompactPlanner): void {
    const { blocks, geometry } = this.#state;
    if (!this.#dry) patchAll(this.#state, moves);
    for (const [n, source] of sources.entries()) {
      const index = planner.blockAt(source);
      if (index === undefined || blocks[index] !== source * geometry.clusterSize) continue;
      blocks[index] = places[n]! * geometry.clusterSize;
      if (!this.#dry) nameBlock(this.#state, index);
    }
    if (!this.#dry) this.#storage.flush();
  }

  #releaseRun({ offset, end, references }: { offset: number; end: number; references: number }) {
    const { counts, compressed, geometry } = this.#state;
    const left: number[] = [];
    const last = Math.floor((end * SECTOR_SIZE - 1) / geometry.clusterSize);
    for (let at = Math.floor(offset / geometry.clusterSize); at <= last; at++) {
      counts.remove(at, references);
      if (counts.word(at) === 0) compressed.delete(at);
      left.push(at);
    }
    return left;
  }

  /** Tables of which none names another one: the same steps. */
  #moveTables(plans: readonly TablePlan[]): void {
    if (plans.length === 0) return;
    const state = this.#state;
    const { counts, bound, tables, geometry } = state;
    const { clusterSize } = geometry;
    const moved = plans.map(({ index, to }) => {
      const old = { ...tables[index]! };
      return { old, table: { ...old, offset: to * clusterSize }, index };
    });
    const clusters = (which: 'old' | 'table') => {
      const list: number[] = [];
      for (const one of moved) eachCluster(one[which], clusterSize, (at) => list.push(at));
      return list.sort((a, b) => a - b);
    };
    for (const { old, table } of moved) {
      const use = useIn(counts.word(old.offset / clusterSize));
      eachCluster(table, clusterSize, (at) => {
        counts.add(at, use, 1);
        bound.add(at);
      });
      this.#moved += clustersOf(table, clusterSize) * clusterSize;
    }
    if (!this.#dry) {
      storeCounts(state, clusters('table'));
      for (const { old, table } of moved) this.#copier.bytes(old.offset, table.offset, old.size);
      this.#storage.flush();
    }
    for (const { table, index } of moved) {
      tables[index] = table;
      if (!this.#dry) this.#name(table);
    }
    const old = clusters('old');
    for (const cluster of old) {
      counts.release(cluster);
      bound.delete(cluster);
    }
    if (this.#dry) return;
    this.#storage.flush();
    storeCounts(state, old);
  }

  /** Lets what names a table say its new offset. */
  #name({ kind, offset, entryAt }: MovableTable): void {
    const { header, tables, refcountTableClusters } = this.#state;
    const storage = this.#storage;
    const within = (outer: MovableTable['kind']) =>
      tables.find((table) => table.kind === outer)!.offset + entryAt;
    switch (kind) {
      case 'l1':
        setL1(storage, { l1Size: header.l1Size, l1TableOffset: offset });
        return;
      case 'snapshots':
        setSnapshots(storage, { nbSnapshots: header.nbSnapshots, snapshotsOffset: offset });
        return;
      case 'refcounts':
        setRefcountTable(storage, { refcountTableOffset: offset, refcountTableClusters });
        return;
      case 'snapshot l1':
        storeOffset(storage, within('snapshots'), offset);
        return;
      case 'bitmap': {
        const { bitmapTableOffset } = BITMAP_DIRECTORY_ENTRY.offsets;
        storeOffset(storage, within('bitmap directory') + bitmapTableOffset, offset);
        return;
      }
      default:
        storeOffset(storage, extensionOffsetAt(storage, kind), offset);
    }
  }

  /** Step 3, but for the counts: what nothing refers to any more is behind the end. */
  #cut(): void {
    const state = this.#state;
    const end = endOf(state);
    const freed = dropBlocks(state, spareBlocks(state, end), this.#dry);
    if (this.#dry) return;
    storeCounts(state, freed);
    const size = endOf(state) * state.geometry.clusterSize;
    if (Number.isFinite(state.limit) || size >= this.#storage.size()) return;
    // What is cut off is let go of by then: no block may be named that is gone.
    this.#storage.flush();
    this.#storage.truncate(size);
  }

  /** Behind the end nothing is counted. */
  #finish(): void {
    const state = this.#state;
    const { perBlock } = state;
    this.#cut();
    const end = endOf(state);
    const rest = Array.from({ length: divCeil(end, perBlock) * perBlock - end }, (_, n) => end + n);
    storeCounts(state, rest);
    this.#storage.flush();
  }
}

const PART = { READ: 0.05 } as const;
const NO_COUNTS: ReadonlyMap<number, number> = new Map();

function isNamedByHeader({ kind }: MovableTable): boolean {
  return kind !== 'snapshot l1' && kind !== 'bitmap' && kind !== 'l1';
}

function movesOf({ sources, places, runs }: Batch): Moves {
  return {
    cells: new Map(sources.map((source, n) => [source, places[n]!])),
    runs: new Map(
      runs.map(({ run, to }) => [run.offset, to * SECTOR_SIZE + (run.offset % SECTOR_SIZE)]),
    ),
    first: sources[0] ?? 0,
    end: (sources.at(-1) ?? -1) + 1,
  };
}
