/** The shared memory of one image: made by the main thread, handed to every thread that attaches. */
import { fstatSync } from 'node:fs';
import { ERRNO } from '../errors.js';
import { allocateChangeMap, type ChangeMapMemory } from '../shared/change-map.js';
import { allocateImageCounters } from '../shared/image-counters.js';
import { allocateImageLock, ImageLock } from '../shared/image-lock.js';
import {
  allocateImageState,
  ImageState,
  type ImageStateMemory,
  type KeptViews,
} from '../shared/image-state.js';
import {
  allocateSliceCache,
  emptySliceCache,
  SliceCache,
  type SliceCacheMemory,
} from '../shared/slice-cache.js';
import type { Storage } from '../storage/storage.js';
import { type ImageDescription, layerClusterSize, type LayerDescription } from './description.js';
import { storageOf } from './file-storage.js';
import { allocateMetadataMap } from './metadata-map.js';
import { hasBit } from './qcow2/features.js';
import { INCOMPATIBLE } from './qcow2/layout.js';
import { snapshotTableSize } from './qcow2/snapshots.js';
import { DEFAULT_WRITE_OPTIONS, type WriteOptions } from './write-options.js';

/** What writing needs. */
export interface WriteMemory {
  readonly options: WriteOptions;
  readonly lock: SharedArrayBuffer;
  readonly state: ImageStateMemory;
  /** What the guards against writing over tables know (`metadata-map.ts`). */
  readonly metadata: SharedArrayBuffer;
  /** Clusters that the file can have: Infinity but for block devices. */
  readonly clusterLimit: number;
  /** What bitmaps are to record; null where there are none. */
  readonly changes: ChangeMapMemory | null;
}

export interface ImageMemory {
  readonly cache: SliceCacheMemory;
  /** Of `ImageCounters`, for each owner. */
  readonly counters: SharedArrayBuffer;
  /** Null where the image is read-only. */
  readonly write: WriteMemory | null;
}

export interface MemoryOptions {
  readonly cacheSize: number;
  /** Threads that attach; their numbers are 1 to `owners`. */
  readonly owners: number;
  readonly write?: WriteOptions;
  /** The numbers that its snapshots had before; from 1 on in the table's order where they are not given. */
  readonly views?: KeptViews | undefined;
  /** A cache of an image that is closed; a new one is made where it is not given. */
  readonly cache?: SliceCacheMemory | undefined;
  /** Instead of the file of the top layer; in tests. */
  readonly storage?: Storage;
}

export function allocateImageMemory(
  description: ImageDescription,
  { cacheSize, owners, write = DEFAULT_WRITE_OPTIONS, storage, views, cache: used }: MemoryOptions,
): ImageMemory {
  const cache = used ?? allocateSliceCache(cacheSize);
  if (used !== undefined) emptySliceCache(used);
  const counters = allocateImageCounters(owners);
  if (!description.writable) return { cache, counters, write: null };
  const top = description.layers[0];
  const { fd } = top.file;
  const size = (storage ?? storageOf(top.file)).size();
  const isDevice = storage === undefined && fstatSync(fd).isBlockDevice();
  const clusterSize = layerClusterSize(top) ?? 1;
  return {
    cache,
    counters,
    write: {
      options: write,
      lock: allocateImageLock(owners),
      state: allocateImageState({
        ...initialState(top, storage ?? storageOf(top.file), size),
        views,
        virginFrom: isDevice ? Number.POSITIVE_INFINITY : Math.ceil(size / clusterSize),
      }),
      metadata: allocateMetadataMap(),
      clusterLimit: isDevice ? Math.floor(size / clusterSize) : Number.POSITIVE_INFINITY,
      changes: changesOf(top),
    },
  };
}

/** Memory for what bitmaps are to record, as finely as the finest one does. */
function changesOf(top: LayerDescription): ChangeMapMemory | null {
  if (top.format !== 'qcow2' || top.bitmaps.length === 0) return null;
  const finest = top.bitmaps.reduce(
    (least, { granularity }) => Math.min(least, granularity),
    Number.POSITIVE_INFINITY,
  );
  return allocateChangeMap(top.header.size, finest);
}

/** Frees what the dead thread `owner` held; what it was changing ends all writing. */
export function recoverOwner(memory: ImageMemory, owner: number): void {
  new SliceCache(memory.cache, owner, () => {
    throw new Error('nothing is loaded for the dead');
  }).recover(owner);
  if (memory.write === null) return;
  const state = new ImageState(memory.write.state);
  new ImageLock(memory.write.lock, owner).recover(owner, () => state.fail(ERRNO.EIO));
}

function initialState(top: LayerDescription, storage: Storage, fileSize: number) {
  if (top.format !== 'qcow2') {
    const none = { l1TableOffset: 0, l1Size: 0, refcountTableOffset: 0, refcountTableClusters: 0 };
    const snapshots = { snapshotsOffset: 0, nbSnapshots: 0, snapshotTableSize: 0 };
    const size = top.format === 'raw' ? fileSize : top.facts.size;
    return { ...none, ...snapshots, size, dirty: false };
  }
  const { header } = top;
  const { size, l1TableOffset, l1Size, refcountTableOffset, refcountTableClusters } = header;
  const tables = { l1TableOffset, l1Size, refcountTableOffset, refcountTableClusters };
  const nbSnapshots = top.snapshots.length;
  const snapshotsOffset = nbSnapshots === 0 ? 0 : header.snapshotsOffset;
  return {
    ...tables,
    size,
    nbSnapshots,
    snapshotsOffset,
    snapshotTableSize: snapshotTableSize(storage, { snapshotsOffset, nbSnapshots }),
    dirty: hasBit(header.incompatibleFeatures, INCOMPATIBLE.DIRTY),
  };
}
