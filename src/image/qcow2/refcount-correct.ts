/** Refcount blocks that are written anew, in place or elsewhere, so that they say what was counted. */
import type { MutableStorage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Geometry } from './geometry.js';
import { countsPerBlock, readBlock, readCount, writeCount } from './refcount-compare.js';
import type { ReferenceCounts } from './reference-counts.js';
import { UNREADABLE } from './references.js';

/** What the count of a cluster is to be, that is `stored` now. */
export type TargetCount = (cluster: number, stored: number) => number;

/** Writes the blocks of `table` that have a count which is not as it is to be. Nothing is flushed. */
export function correctCounts(
  storage: MutableStorage,
  geometry: Geometry,
  table: Float64Array,
  target: TargetCount,
): void {
  const block = new IoBuffer(geometry.clusterSize);
  for (const [index, offset] of table.entries()) {
    if (offset === 0 || offset === UNREADABLE) continue;
    readBlock(storage, block, offset);
    if (correctBlock(block, geometry, index, target)) {
      storage.write(block, 0, block.length, offset);
    }
  }
}

/** Makes the counts of block `index` right. False where they were. */
function correctBlock(
  { view }: IoBuffer,
  geometry: Geometry,
  index: number,
  target: TargetCount,
): boolean {
  const bits = geometry.refcountBits;
  const perBlock = countsPerBlock(geometry);
  let changed = false;
  for (let n = 0; n < perBlock; n++) {
    const stored = readCount(view, bits, n);
    const count = target(index * perBlock + n, stored);
    if (stored === count) continue;
    writeCount(view, bits, n, count);
    changed = true;
  }
  return changed;
}

/** Writes blocks that are new; by index, their offsets. Nothing is flushed. */
export function writeNewBlocks(
  storage: MutableStorage,
  geometry: Geometry,
  placed: ReadonlyMap<number, number>,
  counts: ReferenceCounts,
): void {
  const block = new IoBuffer(geometry.clusterSize);
  for (const [index, offset] of placed) {
    block.bytes.fill(0);
    correctBlock(block, geometry, index, (cluster) => counts.count(cluster));
    storage.write(block, 0, block.length, offset);
  }
}

/** Where a refcount table is to be: its cluster, and how many clusters it has. */
export interface TablePlace {
  readonly start: number;
  readonly tableClusters: number;
}

/** Writes a table that is new, and not named yet. Nothing is flushed. */
export function writeNewTable(
  storage: MutableStorage,
  { clusterSize }: Geometry,
  { start, tableClusters }: TablePlace,
  offsets: Iterable<readonly [index: number, offset: number]>,
): void {
  const bytes = new IoBuffer(tableClusters * clusterSize);
  for (const [index, offset] of offsets) writeOffset(bytes, index, offset);
  storage.write(bytes, 0, bytes.length, start * clusterSize);
}

function writeOffset({ view }: IoBuffer, index: number, offset: number): void {
  view.setBigUint64(index * 8, BigInt(offset));
}

/** Writes one offset at byte `at` of the file, a multiple of 8: within one sector. */
export function storeOffset(storage: MutableStorage, at: number, offset: number): void {
  const entry = new IoBuffer(8);
  writeOffset(entry, 0, offset);
  storage.write(entry, 0, 8, at);
}
