/**
 * Puts right what a check found. The counts that were taken are the truth; no data and no pointer to data is
 * touched. The order, with a flush between two steps:
 *
 * 1. entries that name no cluster any more, a new snapshot table, counts that were too low;
 * 2. the header names the new snapshot table;
 * 3. counts that were too high.
 *
 * Where the refcounts are built anew, all of them are written elsewhere in step 1, and the header names them
 * together with the snapshot table. A crash leaves the counts as they were or as they will be, one by one,
 * never lower than the references there are then; COPIED flags follow at the end, cleared or set where
 * that is true already. What is missing, the next repair does.
 */
import { divCeil } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Steps } from '../steps.js';
import type { CheckedImage } from './checked-image.js';
import type { Report } from './check-findings.js';
import { type CheckedTable, repairedTable } from './check-snapshots.js';
import { setRefcountsAndSnapshots, setRefcountTable, setSnapshots } from './header-edit.js';
import { LIMIT } from './layout.js';
import { countsPerBlock, largestCount } from './refcount-compare.js';
import { correctCounts, writeNewBlocks, writeNewTable } from './refcount-correct.js';
import { type ReferenceCounts, USE } from './reference-counts.js';
import { type ReferenceScan, type ScanSource, scanReferences, UNREADABLE } from './references.js';

export interface RepairPlan {
  readonly scan: ReferenceScan;
  readonly source: ScanSource;
  /** The snapshot table, where it is to be written anew. */
  readonly snapshots: CheckedTable | null;
  /** What may be changed: counts that are too high, or all. */
  readonly fix: 'leaks' | 'all';
  /** Whether the refcounts are of no use. */
  readonly rebuild: boolean;
  readonly report: Report;
}

export interface RepairResult {
  /** The refcount table as it is then, by the blocks' offsets. */
  readonly table: Float64Array;
  /** After a rebuild, things that are still wrong. */
  readonly problems: number;
}

/** All is durable on return. Throws EFBIG or ENOSPC with no refcount changed. */
export function repairImage(image: CheckedImage, plan: RepairPlan): Steps<RepairResult> {
  return new Repair(image, plan).run();
}

class Repair {
  readonly #image: CheckedImage;
  readonly #plan: RepairPlan;
  readonly #clusterSize: number;
  readonly #perBlock: number;
  readonly #snapshots: IoBuffer;

  constructor(image: CheckedImage, plan: RepairPlan) {
    const { geometry, size } = image.header;
    this.#image = image;
    this.#plan = plan;
    this.#clusterSize = geometry.clusterSize;
    this.#perBlock = countsPerBlock(geometry);
    const { snapshots } = plan;
    this.#snapshots = snapshots === null ? new IoBuffer(0) : repairedTable(snapshots, size);
  }

  *run(): Steps<RepairResult> {
    const { scan, rebuild, snapshots } = this.#plan;
    this.#repairEntries();
    if (rebuild) return yield* this.#rebuild(true);
    if (snapshots === null) {
      this.#correct(scan.counts);
      return { table: scan.refcountTable, problems: 0 };
    }
    return yield* this.#moveSnapshots();
  }

  /** Unaligned clusters that read as zeroes: the entries read as zeroes without them. */
  #repairEntries(): void {
    const { scan } = this.#plan;
    const { storage, header } = this.#image;
    const { extendedL2 } = header.geometry;
    const entry = new IoBuffer(8);
    // Subclusters say themselves that they are zero.
    if (!extendedL2) entry.view.setUint32(4, 1);
    for (const { position, table } of scan.entries.repairs) {
      if (scan.isOwnTable(table)) storage.write(entry, 0, 8, position);
    }
  }

  /** Counts in place. */
  #correct(counts: ReferenceCounts): void {
    const { scan, fix } = this.#plan;
    this.#raise(counts, fix);
    this.#image.storage.flush();
    this.#lower(scan, counts);
    this.#image.storage.flush();
  }

  #raise(counts: ReferenceCounts, fix: RepairPlan['fix']): void {
    if (fix !== 'all') return;
    const { storage, header } = this.#image;
    const { scan } = this.#plan;
    correctCounts(storage, header.geometry, scan.refcountTable, (cluster, stored) =>
      Math.max(stored, counts.count(cluster)),
    );
  }

  #lower(scan: ReferenceScan, counts: ReferenceCounts): void {
    const { storage, header } = this.#image;
    // Past the end of the file, counts keep others from what entries that lead nowhere name.
    const end = Math.max(scan.fileClusters, scan.counts.end);
    correctCounts(storage, header.geometry, scan.refcountTable, (cluster, stored) => {
      const count = counts.count(cluster);
      return cluster >= end || stored <= count || scan.isProtected(cluster) ? stored : count;
    });
  }

  /** A new snapshot table, and counts in place where they reach it. */
  *#moveSnapshots(): Steps<RepairResult> {
    const { storage } = this.#image;
    const { scan, snapshots } = this.#plan;
    const { counts } = yield* this.#scanWithout(false);
    const clusters = divCeil(this.#snapshots.length, this.#clusterSize);
    const start = this.#findFree(counts, clusters);
    const { refcountTable } = scan;
    for (let cluster = start; cluster < start + clusters; cluster++) {
      if ((refcountTable[Math.floor(cluster / this.#perBlock)] ?? 0) === 0) {
        return yield* this.#rebuild(false);
      }
      counts.add(cluster, USE.SNAPSHOT_TABLE, 1);
    }
    this.#checkRoom(start + clusters);
    this.#writeSnapshots(start);
    this.#raise(counts, 'all');
    storage.flush();
    setSnapshots(storage, {
      nbSnapshots: snapshots!.entries.length,
      snapshotsOffset: clusters === 0 ? 0 : start * this.#clusterSize,
    });
    storage.flush();
    this.#lower(scan, counts);
    storage.flush();
    return { table: refcountTable, problems: 0 };
  }

  /** New blocks and a new table for all that is in use. */
  *#rebuild(tells: boolean): Steps<RepairResult> {
    const { storage, header } = this.#image;
    const { geometry } = header;
    const { snapshots, scan } = this.#plan;
    const { counts, problems } = yield* this.#scanWithout(true);
    if (tells) this.#tellFreed(counts);
    for (let cluster = scan.protectedFrom; cluster < scan.fileClusters; cluster++) {
      if (counts.count(cluster) === 0) counts.add(cluster, USE.MIXED, 1);
    }
    const snapshotClusters = divCeil(this.#snapshots.length, this.#clusterSize);
    const { start, tableClusters, blocks } = this.#planBlocks(counts, snapshotClusters);
    const tableStart = start + snapshotClusters;
    const firstBlock = tableStart + tableClusters;
    for (let cluster = start; cluster < firstBlock + blocks.length; cluster++) {
      counts.add(cluster, cluster < tableStart ? USE.SNAPSHOT_TABLE : USE.REFCOUNTS, 1);
    }
    const placed = new Map(
      blocks.map((index, n) => [index, (firstBlock + n) * this.#clusterSize] as const),
    );
    this.#writeSnapshots(start);
    writeNewBlocks(storage, geometry, placed, counts);
    writeNewTable(storage, geometry, { start: tableStart, tableClusters }, placed);
    storage.flush();
    const refcounts = {
      refcountTableOffset: tableStart * this.#clusterSize,
      refcountTableClusters: tableClusters,
    };
    if (snapshots === null) setRefcountTable(storage, refcounts);
    else {
      const snapshotsOffset = snapshotClusters === 0 ? 0 : start * this.#clusterSize;
      const nbSnapshots = snapshots.entries.length;
      setRefcountsAndSnapshots(storage, { ...refcounts, nbSnapshots, snapshotsOffset });
    }
    storage.flush();
    const table = new Float64Array((tableClusters * this.#clusterSize) / 8);
    for (const [index, offset] of placed) table[index] = offset;
    return { table, problems };
  }

  /** Where all goes, and the blocks that are needed, those for themselves and their table included. */
  #planBlocks(
    counts: ReferenceCounts,
    snapshotClusters: number,
  ): { start: number; tableClusters: number; blocks: number[] } {
    const needed = new Set<number>();
    let lastBlock = 0;
    counts.forEach((cluster, count) => {
      const index = Math.floor(cluster / this.#perBlock);
      if (count > 0) needed.add(index);
      lastBlock = Math.max(lastBlock, index);
    });
    let total = 0;
    let start = this.#findFree(counts, 1);
    let tableClusters = 0;
    let blocks = [...needed];
    for (let last = -1; last !== total; ) {
      last = total;
      start = this.#findFree(counts, total);
      const end = start + Math.max(total, 1);
      const all = new Set(needed);
      const own = Math.floor((end - 1) / this.#perBlock);
      for (let index = Math.floor(start / this.#perBlock); index <= own; index++) all.add(index);
      tableClusters = divCeil((Math.max(lastBlock, own) + 1) * 8, this.#clusterSize);
      blocks = [...all].sort((a, b) => a - b);
      total = Math.max(total, snapshotClusters + tableClusters + blocks.length);
    }
    if (tableClusters * this.#clusterSize > LIMIT.MAX_REFCOUNT_TABLE_SIZE) {
      throw new ImageError('unsupported', 'EFBIG', 'File too large', {
        operation: 'check',
        limit: `a refcount table of ${tableClusters} clusters`,
      });
    }
    this.#checkRoom(start + total);
    return { start, tableClusters, blocks };
  }

  /** Counts as they will be without the snapshot table, if it moves, and without the refcounts. */
  *#scanWithout(refcounts: boolean): Steps<{ counts: ReferenceCounts; problems: number }> {
    const { storage, header } = this.#image;
    const { source, snapshots } = this.#plan;
    let problems = 0;
    const left = {
      ...source,
      header: refcounts ? { ...header, refcountTableClusters: 0 } : header,
      snapshotTableSize: snapshots === null ? source.snapshotTableSize : 0,
    };
    const { counts } = yield* scanReferences(storage, left, {
      largest: largestCount(header.geometry.refcountBits),
      repairsEntries: true,
      countsPastEnd: true,
      report: () => problems++,
    });
    return { counts, problems };
  }

  /**
   * A run of clusters behind all that is in use, and behind what there is, but on a device; none that
   * an entry names, though the file ends before.
   */
  #findFree(counts: ReferenceCounts, length: number): number {
    const { scan } = this.#plan;
    const isDevice = Number.isFinite(this.#image.limit);
    const used = scan.counts.end;
    let start = isDevice ? used : Math.max(used, scan.fileClusters);
    for (let cluster = start; cluster < start + length; cluster++) {
      if (counts.count(cluster) !== 0) start = cluster + 1;
    }
    return start;
  }

  #checkRoom(end: number): void {
    const { limit } = this.#image;
    if (end <= limit) return;
    throw new ImageError('invalid', 'ENOSPC', 'No space left on device', {
      operation: 'check',
      limit: `the device has ${limit} clusters`,
    });
  }

  #writeSnapshots(start: number): void {
    const { length } = this.#snapshots;
    if (length === 0) return;
    this.#image.storage.write(this.#snapshots, 0, length, start * this.#clusterSize);
  }

  /** The clusters of the old refcounts, which are used for that no more. */
  #tellFreed(counts: ReferenceCounts): void {
    const { scan, report } = this.#plan;
    const { refcountTableOffset, refcountTableClusters } = this.#image.header;
    const clusters = new Set<number>();
    const first = refcountTableOffset / this.#clusterSize;
    for (let n = 0; n < refcountTableClusters; n++) clusters.add(first + n);
    for (const offset of scan.refcountTable) {
      if (offset !== 0 && offset !== UNREADABLE) clusters.add(offset / this.#clusterSize);
    }
    for (const cluster of [...clusters].sort((a, b) => a - b)) {
      const [refcount, references] = [scan.counts.count(cluster), counts.count(cluster)];
      if (refcount <= references) continue;
      report({ kind: 'refcount', cluster, refcount, references, repairing: true });
    }
  }
}
