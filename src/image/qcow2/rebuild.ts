/**
 * Makes the refcounts and COPIED flags of an image true again after a crash: the dirty bit says that
 * they may not be. Everything is counted anew, and what is stored is corrected; pointers and data
 * are never touched.
 */
import { divCeil } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import type { MutableStorage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Bitmap } from './bitmaps.js';
import { compareCopied } from './copied.js';
import { hasBit } from './features.js';
import type { Qcow2Header } from './header.js';
import { HEADER, HEADER_V3, INCOMPATIBLE, LIMIT } from './layout.js';
import {
  compareRefcounts,
  countsPerBlock,
  largestCount,
  readCount,
  writeCount,
} from './refcount-compare.js';
import { MAX_COUNT, type ReferenceCounts, USE } from './reference-counts.js';
import { countReferences, type References } from './references.js';
import type { Snapshot } from './snapshots.js';
import { readRefcountTable, TableReader } from './table-reader.js';

export interface RebuildResult {
  /** Clusters whose refcount was too high. */
  readonly leaksFixed: number;
  /** Clusters whose refcount was too low, and COPIED flags that were wrong. */
  readonly corruptionsFixed: number;
}

/** Refcount structures to be added at the end of the file, in clusters. */
interface Additions {
  /** The first cluster that they take. */
  readonly start: number;
  /** Of a new refcount table, which comes first; 0 where the old one is long enough. */
  readonly tableClusters: number;
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
  const references = countReferences(storage, header, snapshots, bitmaps);
  refuseProblems(storage, references);
  const { counts } = references;
  refuseLargeCounts(storage, header, counts);
  const table = readRefcountTable(storage, header);
  const { leaks, corruptions, missingBlocks } = compareRefcounts(storage, geometry, table, counts);
  const additions = planAdditions(storage, header, table, counts.end, missingBlocks);
  new RefcountRepair(storage, header, table, counts).repair(additions);
  const flags = compareCopied(storage, header, counts, (buffer, at, length, position) =>
    storage.write(buffer, at, length, position),
  );
  storage.flush();
  clearDirty(storage, header);
  return { leaksFixed: leaks, corruptionsFixed: corruptions + flags };
}

function refuseProblems(storage: MutableStorage, { problems }: References): void {
  if (problems.count === 0) return;
  const more = problems.count > 1 ? ` (and ${problems.count - 1} more problems)` : '';
  throw new ImageError(
    'corrupt',
    'EIO',
    `${storage.name}: cannot rebuild the refcounts: ${problems.words[0]}${more}`,
    { path: storage.name },
  );
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
    // New ones first: where they find no room, nothing is changed yet.
    for (const [index, offset] of placed) this.#writeBlock(index, offset);
    this.#correctBlocks();
    if (additions.tableClusters > 0) {
      this.#writeNewTable(additions, placed);
      this.#storage.flush();
      this.#switchTable(additions);
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

  #correctBlocks(): void {
    const reader = new TableReader(this.#storage);
    for (const [index, offset] of this.#table.entries()) {
      if (offset === 0) continue;
      reader.forEachBlock(offset, this.#clusterSize, (length) => {
        if (!this.#correct(reader.buffer, index)) return;
        this.#storage.write(reader.buffer, 0, length, offset);
      });
    }
  }

  /** Makes the counts of block `index` in the buffer right. False where they were. */
  #correct({ view }: IoBuffer, index: number): boolean {
    const { geometry } = this.#header;
    const bits = geometry.refcountBits;
    const perBlock = countsPerBlock(geometry);
    let changed = false;
    for (let n = 0; n < perBlock; n++) {
      const count = this.#counts.count(index * perBlock + n);
      if (readCount(view, bits, n) === count) continue;
      writeCount(view, bits, n, count);
      changed = true;
    }
    return changed;
  }

  #writeBlock(index: number, offset: number): void {
    const block = new IoBuffer(this.#clusterSize);
    this.#correct(block, index);
    this.#storage.write(block, 0, block.length, offset);
  }

  #writeNewTable({ start, tableClusters }: Additions, placed: Map<number, number>): void {
    const bytes = new IoBuffer(tableClusters * this.#clusterSize);
    for (const [index, offset] of this.#table.entries()) writeOffset(bytes, index, offset);
    for (const [index, offset] of placed) writeOffset(bytes, index, offset);
    this.#storage.write(bytes, 0, bytes.length, start * this.#clusterSize);
  }

  /** Both fields lie in one sector, next to each other. */
  #switchTable({ start, tableClusters }: Additions): void {
    const { refcountTableOffset: first, refcountTableClusters: second } = HEADER.offsets;
    const bytes = new IoBuffer(HEADER.size);
    HEADER.set(bytes.view, 0, 'refcountTableOffset', start * this.#clusterSize);
    HEADER.set(bytes.view, 0, 'refcountTableClusters', tableClusters);
    this.#storage.write(bytes, first, second + 4 - first, first);
  }

  #writeEntries(placed: Map<number, number>): void {
    const entry = new IoBuffer(8);
    for (const [index, offset] of placed) {
      writeOffset(entry, 0, offset);
      this.#storage.write(entry, 0, 8, this.#header.refcountTableOffset + index * 8);
    }
  }
}

function writeOffset({ view }: IoBuffer, index: number, offset: number): void {
  view.setBigUint64(index * 8, BigInt(offset));
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
