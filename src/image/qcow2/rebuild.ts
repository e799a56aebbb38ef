/**
 * Makes the refcounts and COPIED flags of an image true again after a crash: the dirty bit says that
 * they may not be. Everything is counted anew, and what is stored is corrected; pointers and data
 * are never touched.
 */
import { divCeil } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import type { MutableStorage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import { runSteps } from '../steps.js';
import type { Bitmap } from './bitmaps.js';
import { compareCopied } from './copied.js';
import { hasBit } from './features.js';
import { setRefcountTable } from './header-edit.js';
import type { Qcow2Header } from './header.js';
import { HEADER, HEADER_V3, INCOMPATIBLE, LIMIT } from './layout.js';
import { ProblemList } from './rebuild-problems.js';
import { compareRefcounts, countsPerBlock, largestCount } from './refcount-compare.js';
import {
  correctCounts,
  type TablePlace,
  writeNewBlocks,
  writeNewTable,
  storeOffset,
} from './refcount-correct.js';
import { MAX_COUNT, type ReferenceCounts, USE } from './reference-counts.js';
import { scanReferences, type SnapshotTables } from './references.js';
import type { Snapshot } from './snapshots.js';

export interface RebuildResult {
  /** Clusters whose refcount was too high. */
  readonly leaksFixed: number;
  /** Clusters whose refcount was too low, and COPIED flags that were wrong. */
  readonly corruptionsFixed: number;
}

/**
 * Refcount structures to be added at the end of the file: the table first, which has 0 clusters where the
 * old one is long enough.
 */
interface Additions extends TablePlace {
  /** Indexes of the new refcount blocks, in order. */
  readonly blocks: readonly number[];
}

/**
 * Repairs the image in `storage`; `snapshots` and `bitmaps` are those of `header`, all of them. For
 * one thread, before anybody else uses the image. The header must be read again afterwards: the
 * dirty bit is clear, and the refcount table may have moved.
 *
 * Throws with nothing changed: 'corrupt', EIO, where pointers lead nowhere or clusters have two
 * uses; EFBIG where a count does not fit the image's refcounts, or the table would grow beyond its
 * limit. An error of the storage itself can come at any time: the dirty bit is still set then, and
 * the next call starts again.
 */
export function rebuildRefcounts(
  storage: MutableStorage,
  header: Qcow2Header,
  snapshots: readonly Snapshot[],
  bitmaps: readonly Bitmap[],
): RebuildResult {
  const { geometry } = header;
  const problems = new ProblemList(geometry.clusterSize);
  problems.checkSnapshots(header, snapshots);
  problems.checkBitmaps(header, bitmaps);
  const snapshotTableSize = problems.snapshotTableSize(storage, header);
  const tables = snapshots.map(tablesOf);
  const source = { header, snapshots: tables, snapshotTableSize, bitmaps };
  const scanning = scanReferences(storage, source, {
    report: (finding) => problems.addFinding(finding),
    conflict: (cluster, use, other) => problems.addConflict(cluster, use, other),
  });
  const scan = runSteps(scanning);
  problems.refuse(storage);
  const { counts, refcountTable: table } = scan;
  refuseLargeCounts(storage, header, counts);
  const missing = new Set<number>();
  const perBlock = countsPerBlock(geometry);
  const comparing = compareRefcounts(
    storage,
    geometry,
    { table, end: comparedEnd(table, counts, perBlock) },
    counts,
    (cluster, _stored, counted) => {
      const index = Math.floor(cluster / perBlock);
      if ((table[index] ?? 0) === 0) missing.add(index);
      return counted;
    },
  );
  const { leaks, corruptions } = runSteps(comparing);
  const additions = planAdditions(storage, header, table, counts.end, missing);
  new RefcountRepair(storage, header, table, counts).repair(additions);
  const flagging = compareCopied(storage, header, {
    countOf: (cluster) => counts.count(cluster),
    strict: true,
    repair: (buffer, at, length, position) => storage.write(buffer, at, length, position),
  });
  const flags = runSteps(flagging);
  storage.flush();
  clearDirty(storage, header);
  return { leaksFixed: leaks, corruptionsFixed: corruptions + flags };
}

/** All that has a count, stored or counted. */
function comparedEnd(table: Float64Array, counts: ReferenceCounts, perBlock: number): number {
  const blocks = table.findLastIndex((offset) => offset !== 0) + 1;
  return Math.max(blocks * perBlock, counts.end);
}

function tablesOf({ id, name, l1TableOffset, l1Size }: Snapshot): SnapshotTables {
  return { id, name, l1TableOffset: BigInt(l1TableOffset), l1Size };
}

function refuseLargeCounts(
  storage: MutableStorage,
  header: Qcow2Header,
  counts: ReferenceCounts,
): void {
  const { clusterSize, refcountBits } = header.geometry;
  // MAX_COUNT stands for anything above it, too.
  const largest = Math.min(largestCount(refcountBits), MAX_COUNT - 1);
  counts.forEach((cluster, count) => {
    if (count <= largest) return;
    const offset = cluster * clusterSize;
    throw new ImageError(
      'unsupported',
      'EFBIG',
      `${storage.name}: cluster at offset 0x${offset.toString(16)} has too many references`,
      { path: storage.name, offset, limit: `${count}, at most ${largest}` },
    );
  });
}

/**
 * What it takes that each cluster in use has a refcount: the new structures need refcounts, too, so
 * that the plan grows until it covers itself.
 */
function planAdditions(
  storage: MutableStorage,
  header: Qcow2Header,
  table: Float64Array,
  end: number,
  missingBlocks: ReadonlySet<number>,
): Additions {
  const { clusterSize } = header.geometry;
  const perBlock = countsPerBlock(header.geometry);
  // Behind all that is referred to: what lies there is nobody's, in a file as on a device.
  const start = end;
  const blocks = new Set(missingBlocks);
  let last = -1;
  for (const index of blocks) last = Math.max(last, index);
  let tableClusters = 0;
  for (let total = 0; total < tableClusters + blocks.size; ) {
    total = tableClusters + blocks.size;
    const lastBlock = Math.floor((start + total - 1) / perBlock);
    for (let index = Math.floor(start / perBlock); index <= lastBlock; index++) {
      if (index >= table.length || table[index] === 0) blocks.add(index);
    }
    last = Math.max(last, lastBlock);
    if (last >= table.length) tableClusters = divCeil((last + 1) * 8, clusterSize);
  }
  if (tableClusters * clusterSize > LIMIT.MAX_REFCOUNT_TABLE_SIZE) {
    throw new ImageError('unsupported', 'EFBIG', `${storage.name}: refcount table too large`, {
      path: storage.name,
      limit: `${tableClusters * clusterSize} bytes, at most ${LIMIT.MAX_REFCOUNT_TABLE_SIZE}`,
    });
  }
  return { start, tableClusters, blocks: [...blocks].sort((a, b) => a - b) };
}

/** Writes the counted refcounts, in place and into new blocks. */
class RefcountRepair {
  readonly #storage: MutableStorage;
  readonly #header: Qcow2Header;
  readonly #clusterSize: number;
  readonly #table: Float64Array;
  readonly #counts: ReferenceCounts;

  constructor(
    storage: MutableStorage,
    header: Qcow2Header,
    table: Float64Array,
    counts: ReferenceCounts,
  ) {
    this.#storage = storage;
    this.#header = header;
    this.#clusterSize = header.geometry.clusterSize;
    this.#table = table;
    this.#counts = counts;
  }

  /** Nothing points at a new structure before it is durable. All is durable on return. */
  repair(additions: Additions): void {
    const placed = this.#place(additions);
    const [storage, counts] = [this.#storage, this.#counts];
    const { geometry } = this.#header;
    // New ones first: where they find no room, nothing is changed yet.
    writeNewBlocks(storage, geometry, placed, counts);
    correctCounts(storage, geometry, this.#table, (cluster) => counts.count(cluster));
    if (additions.tableClusters > 0) {
      writeNewTable(storage, geometry, additions, [...this.#table.entries(), ...placed]);
      this.#storage.flush();
      setRefcountTable(storage, {
        refcountTableOffset: additions.start * geometry.clusterSize,
        refcountTableClusters: additions.tableClusters,
      });
    } else if (placed.size > 0) {
      this.#storage.flush();
      this.#writeEntries(placed);
    }
    this.#storage.flush();
  }

  /** Counts the new structures and no longer the old table. Answers the blocks' offsets by index. */
  #place({ start, tableClusters, blocks }: Additions): Map<number, number> {
    const { refcountTableOffset, refcountTableClusters } = this.#header;
    const placed = new Map<number, number>();
    let cluster = start;
    for (; cluster < start + tableClusters; cluster++) this.#counts.add(cluster, USE.REFCOUNTS, 1);
    for (const index of blocks) {
      this.#counts.add(cluster, USE.REFCOUNTS, 1);
      placed.set(index, cluster * this.#clusterSize);
      cluster++;
    }
    if (tableClusters > 0) {
      const old = refcountTableOffset / this.#clusterSize;
      for (let n = 0; n < refcountTableClusters; n++) this.#counts.release(old + n);
    }
    return placed;
  }

  #writeEntries(placed: Map<number, number>): void {
    const { refcountTableOffset } = this.#header;
    for (const [index, offset] of placed) {
      storeOffset(this.#storage, refcountTableOffset + index * 8, offset);
    }
  }
}

/** The last step: all that the bit warned of is durable. */
function clearDirty(storage: MutableStorage, header: Qcow2Header): void {
  if (!hasBit(header.incompatibleFeatures, INCOMPATIBLE.DIRTY)) return;
  const features = header.incompatibleFeatures & ~(1n << BigInt(INCOMPATIBLE.DIRTY));
  const bytes = new IoBuffer(HEADER_V3.size);
  HEADER_V3.set(bytes.view, 0, 'incompatibleFeatures', features);
  storage.write(bytes, HEADER_V3.offsets.incompatibleFeatures, 8, HEADER.size);
  storage.flush();
}
