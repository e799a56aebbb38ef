/** The stored refcounts while an image is compacted. Nothing is flushed here but where it is said. */
import { divCeil } from '../../codec/bits.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { CompactState } from './compact-state.js';
import { setRefcountTable } from './header-edit.js';
import { readBlock, writeCount } from './refcount-compare.js';
import { storeOffset } from './refcount-correct.js';
import { USE } from './reference-counts.js';

const ENTRY_SIZE = 8;

/** Stores what the state says of these clusters, which are in order. Those without a block are passed over. */
export function storeCounts(state: CompactState, clusters: Iterable<number>): void {
  const { storage, geometry, counts, blocks, perBlock } = state;
  const bits = geometry.refcountBits;
  const block = new IoBuffer(geometry.clusterSize);
  let loaded = -1;
  let first = 0;
  let end = 0;
  const write = (): void => {
    if (end > first) storage.write(block, first, end - first, blocks[loaded]! + first);
  };
  for (const cluster of clusters) {
    const index = Math.floor(cluster / perBlock);
    const offset = blocks[index] ?? 0;
    if (offset === 0) continue;
    if (index !== loaded) {
      write();
      readBlock(storage, block, offset);
      [loaded, first, end] = [index, block.length, 0];
    }
    const at = cluster - index * perBlock;
    writeCount(block.view, bits, at, counts.count(cluster));
    first = Math.min(first, Math.floor((at * bits) / 8));
    end = Math.max(end, Math.ceil(((at + 1) * bits) / 8));
  }
  write();
}

/** Makes the blocks of ranges that have none, each the first cluster of its range. Durable on return. */
export function makeBlocks(state: CompactState, indexes: readonly number[], dry: boolean): void {
  const { storage, geometry, counts, blocks, perBlock } = state;
  if (indexes.length === 0) return;
  const block = new IoBuffer(geometry.clusterSize);
  writeCount(block.view, geometry.refcountBits, 0, 1);
  for (const index of indexes) {
    const cluster = index * perBlock;
    counts.add(cluster, USE.REFCOUNTS, 1);
    blocks[index] = cluster * geometry.clusterSize;
    if (!dry) storage.write(block, 0, block.length, blocks[index]!);
  }
  if (dry) return;
  storage.flush();
  for (const index of indexes) nameBlock(state, index);
  storage.flush();
}

/** Lets the refcount table say where the block of that index is. */
export function nameBlock(state: CompactState, index: number): void {
  const { storage, blocks, tables } = state;
  const table = tables.find(({ kind }) => kind === 'refcounts')!;
  storeOffset(storage, table.offset + index * ENTRY_SIZE, blocks[index]!);
}

/** Blocks that count only clusters from `end` on, which have no references but those of blocks. */
export function spareBlocks({ blocks, perBlock }: CompactState, end: number): number[] {
  const spare: number[] = [];
  for (let index = divCeil(end, perBlock); index < blocks.length; index++) {
    if (blocks[index] !== 0) spare.push(index);
  }
  return spare;
}

/**
 * Lets go of blocks, and of the refcount table's clusters that are not needed then; answers the clusters
 * that this frees, whose counts are to be stored anew. Durable on return.
 */
export function dropBlocks(state: CompactState, spare: readonly number[], dry: boolean): number[] {
  const { storage, geometry, counts, blocks, bound, tables } = state;
  const { clusterSize } = geometry;
  const freed: number[] = [];
  for (const index of spare) {
    freed.push(blocks[index]! / clusterSize);
    blocks[index] = 0;
    if (!dry) nameBlock(state, index);
  }
  const last = blocks.findLastIndex((offset) => offset !== 0);
  const needed = divCeil((last + 1) * ENTRY_SIZE, clusterSize);
  const place = tables.findIndex(({ kind }) => kind === 'refcounts');
  const table = tables[place]!;
  const shrinks = needed < state.refcountTableClusters;
  if (!dry && (shrinks || spare.length > 0)) storage.flush();
  if (shrinks) {
    const first = table.offset / clusterSize;
    for (let n = needed; n < state.refcountTableClusters; n++) {
      freed.push(first + n);
      bound.delete(first + n);
    }
    state.refcountTableClusters = needed;
    tables[place] = { ...table, size: needed * clusterSize };
    if (!dry) {
      const refcountTableOffset = table.offset;
      setRefcountTable(storage, { refcountTableOffset, refcountTableClusters: needed });
      storage.flush();
    }
  }
  for (const cluster of freed) counts.release(cluster);
  return freed.sort((a, b) => a - b);
}
