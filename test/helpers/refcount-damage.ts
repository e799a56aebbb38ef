/** Images whose refcounts and COPIED flags are wrong, and the repair of image files. */
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { readBitmaps } from '#src/image/qcow2/bitmaps.js';
import { type Qcow2Header, readHeader } from '#src/image/qcow2/header.js';
import { type RebuildResult, rebuildRefcounts } from '#src/image/qcow2/rebuild.js';
import { readSnapshots } from '#src/image/qcow2/snapshots.js';
import { FileStorage } from '#src/storage/file.js';
import { MemoryStorage } from '#src/storage/memory.js';
import type { MutableStorage } from '#src/storage/storage.js';
import type { Random } from './random.js';

const COPIED = 0x80;
const DIRTY_AT = 79;

export function rebuild(storage: MutableStorage): RebuildResult {
  const header = readHeader(storage);
  const snapshots = readSnapshots(storage, header);
  return rebuildRefcounts(storage, header, snapshots, readBitmaps(storage, header));
}

export function rebuildFile(path: string): RebuildResult {
  const fd = openSync(path, 'r+');
  try {
    return rebuild(new FileStorage(fd, path));
  } finally {
    closeSync(fd);
  }
}

export function headerOf(bytes: Uint8Array): Qcow2Header {
  return readHeader(new MemoryStorage(bytes));
}

export function isDirty(bytes: Uint8Array): boolean {
  return headerOf(bytes).version === 3 && (bytes[DIRTY_AT]! & 1) === 1;
}

export function markDirty(bytes: Uint8Array): void {
  if (headerOf(bytes).version === 3) bytes[DIRTY_AT]! |= 1;
}

/** Applies `change` to the bytes of the file. */
export function changeFile(path: string, change: (bytes: Buffer) => void): void {
  const bytes = readFileSync(path);
  change(bytes);
  writeFileSync(path, bytes);
}

export function offsetAt(bytes: Buffer, at: number): number {
  return Number(bytes.readBigUInt64BE(at) & 0x00ff_ffff_ffff_fe00n);
}

/** Offsets of the refcount blocks that are there. */
function refcountBlocks(bytes: Buffer, header: Qcow2Header): number[] {
  const { refcountTableOffset: table, refcountTableClusters, geometry } = header;
  const entries = (refcountTableClusters * geometry.clusterSize) / 8;
  return Array.from({ length: entries }, (_, n) => offsetAt(bytes, table + n * 8)).filter(
    (offset) => offset !== 0,
  );
}

/** Makes bytes of refcount blocks random: many of them, few, or all zero. */
export function damageRefcounts(bytes: Buffer, random: Random): void {
  const header = headerOf(bytes);
  const { clusterSize } = header.geometry;
  for (const offset of refcountBlocks(bytes, header)) {
    const block = bytes.subarray(offset, offset + clusterSize);
    const way = random.below(4);
    if (way === 0) block.fill(0);
    if (way === 1) random.bytes(clusterSize).copy(block);
    if (way === 2) {
      for (let n = 0; n < 10; n++) block[random.below(clusterSize)] = random.below(256);
    }
  }
}

/** Takes refcount blocks out of their table. */
export function dropBlocks(bytes: Buffer, random: Random): void {
  const { refcountTableOffset: table, refcountTableClusters, geometry } = headerOf(bytes);
  const size = refcountTableClusters * geometry.clusterSize;
  for (let at = table; at < table + size; at += 8) {
    if (random.chance(0.5)) bytes.fill(0, at, at + 8);
  }
}

/** Flips COPIED flags of the active tables, those of empty and compressed entries, too. */
export function damageCopied(bytes: Buffer, random: Random): void {
  const { l1TableOffset, l1Size, geometry } = headerOf(bytes);
  const { clusterSize, l2EntrySize } = geometry;
  for (let at = l1TableOffset; at < l1TableOffset + l1Size * 8; at += 8) {
    const l2 = offsetAt(bytes, at);
    if (random.chance(0.5)) bytes[at]! ^= COPIED;
    if (l2 === 0) continue;
    for (let entry = l2; entry < l2 + clusterSize; entry += l2EntrySize) {
      if (random.chance(0.3)) bytes[entry]! ^= COPIED;
    }
  }
}
