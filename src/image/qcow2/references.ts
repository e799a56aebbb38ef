/**
 * Walks all of an image's metadata and counts the references that each host cluster has: what the
 * refcounts should be. Nothing is changed, and nothing that is found stops the walk. Rebuilding, checking
 * and repairing have it in common.
 */
import { TWO_32 } from '../../codec/bits.js';
import type { Storage } from '../../storage/storage.js';
import type { Steps } from '../steps.js';
import { type Bitmap, bitmapEntryProblem } from './bitmaps.js';
import type { Report, ScanFinding } from './check-findings.js';
import { hasBit } from './features.js';
import type { Geometry } from './geometry.js';
import type { Qcow2Header } from './header.js';
import { entryValue, hasReservedL1Bits, hostOffsetOf, isCopied } from './l2.js';
import { AUTOCLEAR, INCOMPATIBLE, LIMIT } from './layout.js';
import { type DataCounter, EntryScan } from './reference-entries.js';
import {
  type ClusterUse,
  OVERFLOW,
  ReferenceCounts,
  SEEN,
  type SeenFlag,
  USE,
  useIn,
} from './reference-counts.js';
import { TableReader } from './table-reader.js';

/** Clusters past the end of the file that are counted with `countsPastEnd`. */
const MAX_PAST_END = 1 << 22;
/** L2 tables that are remembered, so that those that snapshots share are read only twice. */
const MAX_REMEMBERED = 1 << 20;
const ENTRY_SIZE = 8;
const MAX_L1_ENTRIES = LIMIT.MAX_L1_SIZE / ENTRY_SIZE;

/** What is walked: the tables that the header names, and what is in them. */
export interface ScanSource {
  readonly header: Qcow2Header;
  readonly snapshots: readonly SnapshotTables[];
  /** Bytes of the snapshot table. */
  readonly snapshotTableSize: number;
  readonly bitmaps: readonly Bitmap[];
}

export interface SnapshotTables {
  readonly id: string;
  readonly name: string;
  /** As it is in the table: any 64 bits. */
  readonly l1TableOffset: bigint;
  /** Entries. */
  readonly l1Size: number;
}

export interface ScanOptions {
  readonly report: Report<ScanFinding>;
  /** Told of clusters with two uses that do not go together. */
  readonly conflict?: (cluster: number, use: ClusterUse, other: ClusterUse) => void;
  /** No cluster can have more references. */
  readonly largest?: number;
  /** Entries that can be repaired are passed over, and listed. */
  readonly repairsEntries?: boolean;
  /** Count clusters not too far past the end of the file, too: nothing shall be put there. */
  readonly countsPastEnd?: boolean;
  /** Told of each range of compressed data, as often as it is met. */
  readonly compressed?: (offset: number, size: number) => void;
}

/** Instead of the offset of a refcount block that is where none can be: it is not read. */
export const UNREADABLE = -1;
/** QEMU takes offsets for signed numbers. */
const NO_OFFSET = 2 ** 63;

/** Walks everything. Memory: 4 bytes for each cluster of the file, holes left out. */
export function* scanReferences(
  storage: Storage,
  source: ScanSource,
  options: ScanOptions,
): Steps<ReferenceScan> {
  const scan = new ReferenceScan(storage, source, options);
  yield* scan.run();
  return scan;
}

export class ReferenceScan implements DataCounter {
  readonly counts: ReferenceCounts;
  readonly entries: EntryScan;
  /** Offsets of the refcount blocks by index; 0: there is none; or UNREADABLE. */
  refcountTable = new Float64Array(0);
  /** Of the unreadable blocks, those that are not aligned: their offsets. */
  readonly unaligned = new Map<number, bigint>();
  /** The refcounts can be made right only by new refcount blocks. */
  needsRebuild = false;
  readonly fileClusters: number;
  /** From here on lie ranges that were not counted, as they reach past the end of the file. */
  protectedFrom = Number.POSITIVE_INFINITY;
  readonly #source: ScanSource;
  readonly #options: ScanOptions;
  readonly #geometry: Geometry;
  readonly #fileSize: number;
  readonly #reader: TableReader;
  /** L2 tables in which nothing was found, and how often they are to be counted again. */
  readonly #known = new Map<number, number>();
  /** Entries of L1 tables that were looked at, and how many there are. */
  #walked = 0;
  readonly #entries: number;

  constructor(storage: Storage, source: ScanSource, options: ScanOptions) {
    const { geometry } = source.header;
    this.#source = source;
    this.#options = options;
    this.#geometry = geometry;
    this.#fileSize = storage.size();
    this.fileClusters = Math.ceil(this.#fileSize / geometry.clusterSize);
    this.counts = new ReferenceCounts(options.largest);
    const { report, repairsEntries = false } = options;
    this.entries = new EntryScan(storage, source.header, this, report, repairsEntries);
    this.#reader = new TableReader(storage);
    const { header, snapshots } = source;
    this.#entries = snapshots.reduce((sum, { l1Size }) => sum + l1Size, header.l1Size);
  }

  *run(): Steps<void> {
    const { header, snapshots, snapshotTableSize } = this.#source;
    this.#range(USE.HEADER, 0, this.#geometry.clusterSize);
    yield* this.#countL1Table(header.l1TableOffset, header.l1Size, true);
    yield* this.#countSnapshots(snapshots);
    this.#range(USE.SNAPSHOT_TABLE, header.snapshotsOffset, snapshotTableSize);
    const { refcountTableOffset, refcountTableClusters } = header;
    const size = refcountTableClusters * this.#geometry.clusterSize;
    this.#range(USE.REFCOUNTS, refcountTableOffset, size);
    const { cryptoHeader } = header.extensions;
    if (cryptoHeader !== null) this.#range(USE.HEADER, cryptoHeader.offset, cryptoHeader.length);
    this.#countBitmaps();
    for (const [table, times] of this.#known) {
      if (times > 0) this.entries.scan(table, times, false);
      yield this.#part;
    }
    this.entries.settleRepairs((table) => this.isOwnTable(table));
    this.#countRefcountBlocks(refcountTableOffset, size);
  }

  /** Whether part of a table or of data that reaches past the end of the file may lie there. */
  isProtected(cluster: number): boolean {
    return cluster >= this.protectedFrom;
  }

  /** Whether an L1 or L2 table lies there and nothing else: writing to it changes no data. */
  isOwnTable(offset: number): boolean {
    const { clusterSize } = this.#geometry;
    const use = useIn(this.counts.word(Math.floor(offset / clusterSize)));
    return (use === USE.L2_TABLE || use === USE.L1_TABLE) && offset % clusterSize === 0;
  }

  addData(first: number, length: number, n: number, seen: SeenFlag): void {
    for (let done = 0; done < length; ) {
      done += this.counts.addFresh(first + done, length - done, USE.DATA, n, seen);
      if (done < length) this.#add(first + done++, USE.DATA, n, seen);
    }
  }

  addDataRange(offset: number, size: number, n: number, seen: SeenFlag, exact?: bigint): void {
    if (exact !== undefined) this.#options.compressed?.(offset, size);
    this.#range(USE.DATA, offset, size, n, seen, exact);
  }

  /** Counts an L1 table of `l1Size` entries, and each L2 table as often as it is referenced. */
  *#countL1Table(offset: number, l1Size: number, active: boolean): Steps<void> {
    this.#range(USE.L1_TABLE, offset, l1Size * ENTRY_SIZE);
    const { view } = this.#reader.buffer;
    for (const { length } of this.#reader.blocks(offset, l1Size * ENTRY_SIZE)) {
      for (let at = 0; at < length; at += ENTRY_SIZE) {
        this.#walked++;
        const high = view.getUint32(at);
        const low = view.getUint32(at + 4);
        if (low === 0 && high === 0) continue;
        this.#countL1Entry(low, high, active);
        yield this.#part;
      }
      yield this.#part;
    }
  }

  /** Of the entries of all L1 tables. */
  get #part(): number {
    return Math.min(1, this.#walked / Math.max(1, this.#entries));
  }

  #countL1Entry(low: number, high: number, active: boolean): void {
    const { clusterSize } = this.#geometry;
    if (hasReservedL1Bits(low, high)) {
      this.#options.report({ kind: 'l1-reserved', entry: entryValue(low, high) });
    }
    const table = hostOffsetOf(low, high);
    if (table === 0) {
      // A flag beside nothing: no table lies over the header.
      if (active) this.entries.suspectsFlags = true;
      return;
    }
    const seen = isCopied(high) ? SEEN.COPIED : SEEN.NOT_COPIED;
    this.#range(USE.L2_TABLE, table, clusterSize, 1, active ? seen : SEEN.NOTHING);
    if (table % clusterSize !== 0) {
      this.#options.report({ kind: 'l2-table-unaligned', offset: table });
    }
    this.#countL2Table(table, active);
  }

  #countL2Table(table: number, active: boolean): void {
    const times = active ? undefined : this.#known.get(table);
    if (times !== undefined) {
      this.#known.set(table, times + 1);
      return;
    }
    const clean = this.entries.scan(table, 1, active);
    // What comes again and again is counted at once, unless it has more to say.
    if (clean && this.#known.size < MAX_REMEMBERED && this.#source.snapshots.length > 0) {
      this.#known.set(table, 0);
    }
  }

  *#countSnapshots(snapshots: readonly SnapshotTables[]): Steps<void> {
    const { report } = this.#options;
    const { incompatibleFeatures } = this.#source.header;
    if (snapshots.length > 0 && hasBit(incompatibleFeatures, INCOMPATIBLE.DATA_FILE)) {
      report({ kind: 'snapshots-external', count: snapshots.length });
    }
    for (const { id, name, l1TableOffset, l1Size } of snapshots) {
      if (l1TableOffset % BigInt(this.#geometry.clusterSize) !== 0n) {
        report({ kind: 'snapshot-l1-unaligned', id, name, offset: l1TableOffset });
      } else if (l1Size > MAX_L1_ENTRIES) {
        report({ kind: 'snapshot-l1-large', id, name, l1Size });
      } else yield* this.#countL1Table(Number(l1TableOffset), l1Size, false);
    }
  }

  /** Without the autoclear bit, what the extension says is out of date: nobody owns its clusters. */
  #countBitmaps(): void {
    const { header, bitmaps } = this.#source;
    const extension = header.extensions.bitmaps;
    if (extension === null || !hasBit(header.autoclearFeatures, AUTOCLEAR.BITMAPS)) return;
    const { bitmapDirectoryOffset, bitmapDirectorySize } = extension;
    this.#range(USE.BITMAP, bitmapDirectoryOffset, bitmapDirectorySize);
    for (const { name, tableOffset, tableSize } of bitmaps) {
      this.#range(USE.BITMAP, tableOffset, tableSize * ENTRY_SIZE);
      this.#forEachEntry(tableOffset, tableSize * ENTRY_SIZE, (low, high) => {
        const host = hostOffsetOf(low, high);
        const isWrong = host % this.#geometry.clusterSize !== 0;
        if (isWrong || bitmapEntryProblem(low, high, host) !== null) {
          this.#options.report({ kind: 'bitmap-entry', name, entry: entryValue(low, high) });
        } else if (host !== 0) this.#range(USE.BITMAP, host, this.#geometry.clusterSize);
      });
    }
  }

  #countRefcountBlocks(offset: number, size: number): void {
    const { clusterSize } = this.#geometry;
    const table = new Float64Array(size / ENTRY_SIZE);
    this.refcountTable = table;
    this.#forEachEntry(offset, size, (low, high, position) => {
      const index = (position - offset) / ENTRY_SIZE;
      const lowPlace = (low & ~0x1ff) >>> 0;
      const place = high * TWO_32 + lowPlace;
      // By its low half: the whole may not be exact.
      const isAligned = lowPlace % clusterSize === 0;
      table[index] = isAligned && place < NO_OFFSET ? place : UNREADABLE;
      if (!isAligned) this.unaligned.set(index, entryValue(lowPlace, high));
      this.#countRefcountBlock(index, place, (low & 0x1ff) !== 0);
    });
  }

  #countRefcountBlock(index: number, place: number, reserved: boolean): void {
    const { clusterSize } = this.#geometry;
    const { report, repairsEntries = false } = this.#options;
    const cluster = place / clusterSize;
    const end = Math.max(this.fileClusters, this.counts.end);
    if (reserved) {
      report({ kind: 'block-reserved', index });
    } else if (this.unaligned.has(index)) {
      report({ kind: 'block-unaligned', index });
    } else if (cluster >= end) {
      report({ kind: 'block-outside', index, repairing: repairsEntries });
      // Nothing can be wrong with what it counts: no cluster in use is among it, or it has the count 0.
      if (!repairsEntries) return;
    } else {
      if (place === 0) return;
      this.#range(USE.REFCOUNTS, place, clusterSize);
      const references = this.counts.count(cluster);
      if (references === 1) return;
      report({ kind: 'block-shared', index, references });
    }
    this.needsRebuild = true;
  }

  /** Calls `visit` for the entries of a table that are not 0, by halves, with their offsets. */
  #forEachEntry(
    offset: number,
    size: number,
    visit: (low: number, high: number, position: number) => void,
  ): void {
    const { view } = this.#reader.buffer;
    this.#reader.forEachBlock(offset, size, (length, position) => {
      for (let at = 0; at < length; at += 8) {
        const high = view.getUint32(at);
        const low = view.getUint32(at + 4);
        if (low !== 0 || high !== 0) visit(low, high, position + at);
      }
    });
  }

  /** Adds the clusters of a range, where it lies in the file or less than a cluster past its end. */
  #range(
    use: ClusterUse,
    offset: number,
    size: number,
    n = 1,
    seen: SeenFlag = SEEN.NOTHING,
    exact?: bigint,
  ): void {
    const { clusterSize } = this.#geometry;
    if (size === 0) return;
    if (offset + size - this.#fileSize >= clusterSize) {
      this.#pastEnd(use, offset, size, n, exact);
      const end = (this.fileClusters + MAX_PAST_END) * clusterSize;
      if (this.#options.countsPastEnd !== true || offset + size > end) return;
    }
    const last = Math.floor((offset + size - 1) / clusterSize);
    for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster++) {
      this.#add(cluster, use, n, seen);
    }
  }

  #pastEnd(use: ClusterUse, offset: number, size: number, n: number, exact?: bigint): void {
    const finding = { kind: 'past-end', use, offset: exact ?? BigInt(offset), size } as const;
    for (let times = 0; times < n; times++) this.#options.report(finding);
    const first = Math.floor(offset / this.#geometry.clusterSize);
    const isNeeded = use === USE.L1_TABLE || use === USE.DATA;
    if (isNeeded && first < this.fileClusters) {
      this.protectedFrom = Math.min(this.protectedFrom, first);
    }
  }

  #add(cluster: number, use: ClusterUse, n: number, seen: SeenFlag): void {
    const other = this.counts.add(cluster, use, n, seen);
    if (other === USE.NONE) return;
    if (other === OVERFLOW) this.#overflow(cluster, use, n, seen);
    else this.#options.conflict?.(cluster, use, other);
  }

  /** As many as there can be, and a finding for each of the rest. */
  #overflow(cluster: number, use: ClusterUse, n: number, seen: SeenFlag): void {
    for (let times = 0; times < n; times++) {
      if (n > 1 && this.counts.add(cluster, use, 1, seen) !== OVERFLOW) continue;
      this.#options.report({ kind: 'overflow', offset: cluster * this.#geometry.clusterSize });
    }
  }
}
