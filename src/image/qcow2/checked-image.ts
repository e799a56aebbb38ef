/** An image as it is checked and repaired: its file, and what is known before its tables are walked. */
import type { MutableStorage, Storage } from '../../storage/storage.js';
import type { Bitmap } from './bitmaps.js';
import type { Qcow2Header } from './header.js';

export interface CheckedImage {
  /** Written to only with a fix. */
  readonly storage: MutableStorage;
  readonly header: Qcow2Header;
  readonly bitmaps: readonly Bitmap[];
  /** Clusters that the storage has room for: Infinity but for block devices. */
  readonly limit: number;
}

/** Clusters that the storage has room for: Infinity but for block devices. */
export function clusterLimit(storage: Storage, isDevice: boolean, clusterSize: number): number {
  return isDevice ? Math.floor(storage.size() / clusterSize) : Number.POSITIVE_INFINITY;
}
