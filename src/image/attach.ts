/** One thread's use of an opened image: its disks, made on first use. */
import { LRUCache } from 'lru-cache';
import { alignUp } from '../codec/bits.js';
import { ImageError } from '../errors.js';
import {
  type LoadSlice,
  SLICE_SIZE,
  SliceCache,
  type SliceCacheMemory,
} from '../shared/slice-cache.js';
import { FileStorage } from '../storage/file.js';
import type { Storage } from '../storage/storage.js';
import { IoBuffer } from '../sys/io-buffer.js';
import type { ImageDescription, LayerDescription, Qcow2Description } from './description.js';
import { Disk } from './disk.js';
import { type Extent, type Mapping, SECTOR_SIZE } from './extent.js';
import { ClusterDecompressor, loadZstd } from './qcow2/compression.js';
import { l1EntriesFor } from './qcow2/geometry.js';
import { COMPRESSION_TYPE } from './qcow2/layout.js';
import { type Qcow2Layer, Qcow2Mapping } from './qcow2/mapping.js';
import type { Snapshot } from './qcow2/snapshots.js';
import { RawMapping } from './raw.js';

/** Snapshots' disks that a thread keeps: an image can have 65,536. */
const DISKS_KEPT = 256;

/** Loads what this thread needs to read the image; to be awaited before it is attached. */
export async function prepareToAttach({ layers }: ImageDescription): Promise<void> {
  const zstd = layers.some(
    (layer) => layer.format === 'qcow2' && layer.header.compressionType === COMPRESSION_TYPE.ZSTD,
  );
  if (zstd) await loadZstd();
}

/** The disks of one image. */
export class AttachedImage {
  readonly description: ImageDescription;
  /** The disk as the guest sees it now. */
  readonly disk: Disk;
  readonly #backing: Disk | null;
  readonly #top: Qcow2Layer | null;
  readonly #snapshots = new LRUCache<number, Disk>({ max: DISKS_KEPT });
  readonly #vmStates = new LRUCache<number, Disk>({ max: DISKS_KEPT });

  /** `owner`: this thread's number, from 1. */
  constructor(description: ImageDescription, memory: SliceCacheMemory, owner: number) {
    this.description = description;
    const storages: Storage[] = description.layers.map(
      (layer) => new FileStorage(layer.file.fd, layer.file.path),
    );
    const units = description.layers.map((layer) =>
      layer.format === 'qcow2' ? layer.header.geometry.clusterSize : 1,
    );
    const cache = new SliceCache(memory, owner, sliceLoader(storages, units));
    const decompressor = new ClusterDecompressor();
    let below: Disk | null = null;
    let backing: Disk | null = null;
    let top: Qcow2Layer | null = null;
    for (let index = description.layers.length - 1; index >= 0; index--) {
      const layer = description.layers[index]!;
      backing = below;
      top =
        layer.format === 'qcow2'
          ? qcow2Layer(layer, storages[index]!, index, cache, decompressor)
          : null;
      below = new Disk(activeMapping(layer, storages[index]!, top), backing);
    }
    this.disk = below!;
    this.#backing = backing;
    this.#top = top;
  }

  /** The disk of the snapshot at `index` of the description's list. */
  snapshotDisk(index: number): Disk {
    return remember(this.#snapshots, index, () => {
      const { snapshot, layer } = this.#snapshot(index);
      const size = snapshot.diskSize - (snapshot.diskSize % SECTOR_SIZE);
      return new Disk(new Qcow2Mapping(layer, { ...snapshot, size }), this.#backing);
    });
  }

  /** The VM state saved with that snapshot: it lies behind the disk, in the same L1 table. */
  vmState(index: number): Disk {
    return remember(this.#vmStates, index, () => {
      const { snapshot, layer } = this.#snapshot(index);
      const { geometry } = layer;
      const start = l1EntriesFor(geometry, snapshot.diskSize) * geometry.l2Coverage;
      const size = start + snapshot.vmStateSize;
      const whole = new Qcow2Mapping(layer, { ...snapshot, size });
      return new Disk(new TailMapping(whole, start), null);
    });
  }

  #snapshot(index: number): { snapshot: Snapshot; layer: Qcow2Layer } {
    const top = this.description.layers[0];
    const snapshot = top.format === 'qcow2' ? top.snapshots[index] : undefined;
    if (snapshot === undefined || this.#top === null) throw new RangeError(`snapshot ${index}`);
    if (snapshot.problem !== null) {
      throw new ImageError('corrupt', 'EIO', `${top.file.path}: ${snapshot.problem}`);
    }
    return { snapshot, layer: this.#top };
  }
}

/** What lies at `start` and beyond in another mapping, seen from 0. */
class TailMapping implements Mapping {
  readonly size: number;
  readonly unit: number;
  readonly #whole: Mapping;
  readonly #start: number;

  constructor(whole: Mapping, start: number) {
    this.size = whole.size - start;
    this.unit = whole.unit;
    this.#whole = whole;
    this.#start = start;
  }

  map(offset: number, length: number, extent: Extent): void {
    this.#whole.map(this.#start + offset, length, extent);
  }

  decompress(extent: Extent): Uint8Array {
    return this.#whole.decompress(extent);
  }
}

function activeMapping(layer: LayerDescription, storage: Storage, qcow2: Qcow2Layer | null) {
  if (layer.format === 'raw') return new RawMapping(storage, layer.fileSize);
  const { l1TableOffset, l1Size, size } = layer.header;
  return new Qcow2Mapping(qcow2!, { l1TableOffset, l1Size, size });
}

function qcow2Layer(
  description: Qcow2Description,
  storage: Storage,
  file: number,
  cache: SliceCache,
  decompressor: ClusterDecompressor,
): Qcow2Layer {
  const { header, dataFile } = description;
  const { geometry } = header;
  return {
    geometry,
    storage,
    dataStorage: dataFile === null ? storage : new FileStorage(dataFile.fd, dataFile.path),
    file,
    cache,
    compressionType: header.compressionType,
    clusterSize: geometry.clusterSize,
    decompressor,
  };
}

/** Loads slices of the layers' tables; entries come in the host's byte order. */
function sliceLoader(storages: readonly Storage[], units: readonly number[]): LoadSlice {
  const scratch = new IoBuffer(SLICE_SIZE);
  return (file, offset, target) => {
    const storage = storages[file]!;
    const unit = units[file]!;
    const length = Math.min(unit, SLICE_SIZE);
    const n = storage.read(scratch, 0, length, offset);
    if (n < length && offset + length > alignUp(storage.size(), unit)) {
      throw new ImageError(
        'corrupt',
        'EIO',
        `${storage.name}: table at offset 0x${offset.toString(16)} lies past the end of the file`,
        { path: storage.name, offset },
      );
    }
    scratch.bytes.fill(0, n);
    scratch.bytes.swap64();
    target.set(scratch.bytes);
  };
}

function remember<V extends object>(kept: LRUCache<number, V>, key: number, make: () => V): V {
  let value = kept.get(key);
  if (value === undefined) {
    value = make();
    kept.set(key, value);
  }
  return value;
}
