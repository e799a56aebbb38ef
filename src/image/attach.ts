/** One thread's use of an opened image: its disks, made on first use, and its writer. */
import { LRUCache } from 'lru-cache';
import { alignUp } from '../codec/bits.js';
import { ImageError } from '../errors.js';
import { ChangeMap } from '../shared/change-map.js';
import { ImageCounters, type ImageTotals, imageTotals } from '../shared/image-counters.js';
import { ImageLock } from '../shared/image-lock.js';
import { ImageState, type WriteTotals } from '../shared/image-state.js';
import {
  allocateSliceCache,
  type LoadSlice,
  SLICE_SIZE,
  SliceCache,
} from '../shared/slice-cache.js';
import type { MutableStorage, Storage } from '../storage/storage.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { sectorCipher } from './crypto/sector-cipher.js';
import type {
  ImageDescription,
  LayerDescription,
  OtherDescription,
  Qcow2Description,
} from './description.js';
import { Disk } from './disk.js';
import type { ImageMemory, WriteMemory } from './memory.js';
import { storageOf } from './file-storage.js';
import { type Extent, type Mapping, SECTOR_SIZE } from './extent.js';
import type { CheckedSource, FormatSource, SourceFile } from './format.js';
import { formatDriver } from './formats.js';
import { BITMAP_FLAG, type Bitmap, isUsable } from './qcow2/bitmaps.js';
import { ClusterDecompressor, loadZstd } from './qcow2/compression.js';
import { vmStateStart } from './qcow2/geometry.js';
import type { Qcow2Header } from './qcow2/header.js';
import { COMPRESSION_TYPE, LIMIT } from './qcow2/layout.js';
import { type LayerCipher, type Qcow2Layer, Qcow2Mapping } from './qcow2/mapping.js';
import { readSnapshots, type Snapshot } from './qcow2/snapshots.js';
import { type DirtySource, StoredBitmap } from './qcow2/stored-bitmap.js';
import { Qcow2Writer } from './qcow2/writer.js';
import { RawMapping } from './raw.js';
import { RawWriter } from './raw-writer.js';
import type { ImageWriter } from './writer.js';

/** Snapshots' disks that a thread keeps: an image can have 65,536. */
const DISKS_KEPT = 256;

/** Loads what this thread needs to read the image; to be awaited before it is attached. */
export async function prepareToAttach({ layers }: ImageDescription): Promise<void> {
  const zstd = layers.some(
    (layer) => layer.format === 'qcow2' && layer.header.compressionType === COMPRESSION_TYPE.ZSTD,
  );
  if (zstd) await loadZstd();
}

/** Bytes of disk and VM state that offsets can tell. */
const MOST_MAPPED = 2 ** 53;

/** A snapshot as it is shown: the view's number is never another one's. */
export interface SnapshotView {
  readonly view: number;
  readonly snapshot: Snapshot;
}

export interface AttachOptions {
  /** Instead of the file of the top layer; in tests. */
  readonly storage?: MutableStorage;
  /** The same for its data file. */
  readonly dataStorage?: MutableStorage;
  /** How long its writer waits for other threads, before EAGAIN; for ever where it is not given. */
  readonly patienceMs?: number;
}

/** The disks of one image. */
export class AttachedImage {
  readonly description: ImageDescription;
  /** The disk as the guest sees it now. Its size changes. */
  readonly disk: Disk;
  /** Null where the image is read-only. */
  readonly writer: ImageWriter | null;
  /** Where this thread counts what it reads and writes. */
  readonly counters: ImageCounters;
  readonly #countersMemory: SharedArrayBuffer;
  readonly #state: ImageState | null;
  readonly #lock: ImageLock | null;
  readonly #backing: Disk | null;
  readonly #top: Qcow2Layer | null;
  /** What bitmaps are to record; null where there is nothing. */
  readonly #changes: ChangeMap | null;
  /** All that the active L1 table maps; null of other formats than qcow2. */
  readonly #whole: Disk | null;
  readonly #snapshots = new LRUCache<number, Disk>({ max: DISKS_KEPT });
  readonly #vmStates = new LRUCache<number, Disk>({ max: DISKS_KEPT });
  #views: readonly SnapshotView[] | undefined;
  #viewsGeneration = 0;

  /** `owner`: this thread's number, from 1. */
  constructor(
    description: ImageDescription,
    memory: ImageMemory,
    owner: number,
    options: AttachOptions = {},
  ) {
    this.description = description;
    const files = description.layers.map(({ file }) => storageOf(file));
    const top: MutableStorage = options.storage ?? files[0]!;
    const storages: Storage[] = [top, ...files.slice(1)];
    const { files: tables, extents } = tableFiles(storages, description.layers);
    this.counters = new ImageCounters(memory.counters, owner);
    this.#countersMemory = memory.counters;
    const cache = new SliceCache(memory.cache, owner, sliceLoader(tables), this.counters);
    this.#state = memory.write === null ? null : new ImageState(memory.write.state);
    const data = description.layers.map((layer) =>
      layer.format === 'qcow2' && layer.dataFile !== null ? storageOf(layer.dataFile) : null,
    );
    if (options.dataStorage !== undefined) data[0] = options.dataStorage;
    const decompressor = new ClusterDecompressor(() => this.#state?.compressedEpoch ?? 0);
    const qcow2 = description.layers.map((layer, index) =>
      layer.format === 'qcow2'
        ? qcow2Layer(layer, storages[index]!, data[index]!, index, cache, decompressor)
        : null,
    );
    const changes = memory.write?.changes ?? null;
    this.#changes = changes === null ? null : new ChangeMap(changes);
    this.#lock =
      memory.write === null ? null : new ImageLock(memory.write.lock, owner, options.patienceMs);
    let below: Disk | null = null;
    for (let index = description.layers.length - 1; index > 0; index--) {
      const layer = description.layers[index]!;
      const source = { storage: storages[index]!, cache, file: index, extents: extents[index]! };
      const mapping = activeMapping(layer, source, qcow2[index]!, null);
      below = new Disk(mapping, below, refusalOf(description.layers, index));
    }
    this.#backing = below;
    this.#top = qcow2[0]!;
    const source = { storage: top, cache, file: 0, disk: this.#state, extents: extents[0]! };
    const mapping = activeMapping(description.layers[0], source, this.#top, this.#state);
    this.disk = new Disk(mapping, below, refusalOf(description.layers, 0));
    this.#whole = wholeDisk(description.layers[0], this.#top, this.#state);
    this.writer =
      memory.write === null ? null : this.#makeWriter(memory.write, cache, top, data[0]!);
  }

  /**
   * To be called before disks or tables are read, and `leave` after: no cluster is used for something
   * else between. Not nested, and never around a call of the writer.
   */
  enter(): void {
    this.#lock?.enterShared();
  }

  leave(): void {
    this.#lock?.leaveShared();
  }

  /** Grows whenever the snapshots or the disk's size change, by any thread. */
  get generation(): number {
    return this.#state?.generation ?? 0;
  }

  /** Grows whenever the maps of its disks may have changed, by any thread. */
  get edits(): number {
    return this.#state?.edits ?? 0;
  }

  /** What all threads have done with it since it was opened. */
  totals(): ImageTotals & WriteTotals {
    const written = this.#state?.totals ?? { flushes: 0, flushMilliseconds: 0, allocated: 0 };
    return { ...imageTotals(this.#countersMemory), ...written };
  }

  /** The snapshots as they are now, in the table's order: the same object while nothing changes. */
  snapshots(): readonly SnapshotView[] {
    const top = this.description.layers[0];
    if (top.format !== 'qcow2') return [];
    const { generation } = this;
    if (this.#views === undefined || this.#viewsGeneration !== generation) {
      this.#views = this.#readViews(top.header, top.snapshots);
      // Only now: if reading failed, the old list must not be taken for the new one.
      this.#viewsGeneration = generation;
      this.#snapshots.clear();
      this.#vmStates.clear();
    }
    return this.#views;
  }

  /** The disk of the snapshot with that view number. */
  snapshotDisk(view: number): Disk {
    // What is kept is of the snapshots as they are now.
    this.snapshots();
    return remember(this.#snapshots, view, () => {
      const { snapshot, layer } = this.#snapshot(view);
      const size = snapshot.diskSize - (snapshot.diskSize % SECTOR_SIZE);
      return new Disk(new Qcow2Mapping(layer, { ...snapshot, size }), this.#backing);
    });
  }

  /** The VM state saved with that snapshot: it lies behind the disk, in the same L1 table. */
  vmState(view: number): Disk {
    // What is kept is of the snapshots as they are now.
    this.snapshots();
    return remember(this.#vmStates, view, () => {
      const { snapshot, layer } = this.#snapshot(view);
      const { geometry } = layer;
      const start = vmStateStart(geometry, snapshot.diskSize);
      const size = start + snapshot.vmStateSize;
      const whole = new Qcow2Mapping(layer, { ...snapshot, size });
      return new Disk(new TailMapping(whole, () => start), null);
    });
  }

  /** The VM state that lies behind the active disk: of no snapshot yet, or of the last one reverted to. */
  activeVmState(): Disk {
    if (this.#whole === null) {
      const { file, format } = this.description.layers[0];
      const message = `${file.path}: ${format} images hold no VM state`;
      throw new ImageError('unsupported', 'ENOTSUP', message);
    }
    const { geometry } = this.#top!;
    const start = () => vmStateStart(geometry, this.disk.size);
    return new Disk(new TailMapping(this.#whole.mapping, start), null);
  }

  /**
   * What a bitmap of the image says is dirty now, as long as `version` stays: null where its bits cannot
   * be used.
   */
  dirtyOf(
    bitmap: Bitmap,
  ): { readonly sources: readonly DirtySource[]; readonly version: number } | null {
    const top = this.#top;
    if (top === null || !isUsable(bitmap)) return null;
    const { size } = this.disk;
    const changes = this.#changes;
    const end = Math.min(size, changes?.keptEnd ?? size);
    const stored = new StoredBitmap(top.storage, bitmap, top.clusterSize, end);
    if (changes === null) return { sources: [stored], version: 0 };
    const isEnabled = (bitmap.flags & BITMAP_FLAG.AUTO) !== 0;
    return { sources: isEnabled ? [stored, changes] : [stored], version: changes.version };
  }

  #snapshot(view: number): { snapshot: Snapshot; layer: Qcow2Layer } {
    const top = this.description.layers[0];
    const snapshot = this.snapshots().find((shown) => shown.view === view)?.snapshot;
    if (snapshot === undefined || this.#top === null) {
      throw new ImageError('missing', 'ENOENT', `${top.file.path}: no snapshot ${view}`);
    }
    if (snapshot.problem !== null) {
      throw new ImageError('corrupt', 'EIO', `${top.file.path}: ${snapshot.problem}`);
    }
    return { snapshot, layer: this.#top };
  }

  #readViews(header: Qcow2Header, opened: readonly Snapshot[]): SnapshotView[] {
    const state = this.#state;
    if (state === null || state.generation === 0) {
      return opened.map((snapshot, index) => ({
        view: state === null ? index + 1 : state.viewAt(index),
        snapshot,
      }));
    }
    const { geometry } = header;
    const { size, snapshotsOffset, nbSnapshots } = state;
    const source = { geometry, size, snapshotsOffset, nbSnapshots };
    return readSnapshots(this.#top!.storage, source).map((snapshot, index) => ({
      view: state.viewAt(index),
      snapshot,
    }));
  }

  #makeWriter(
    memory: WriteMemory,
    cache: SliceCache,
    storage: MutableStorage,
    dataStorage: MutableStorage | null,
  ): ImageWriter {
    const top = this.description.layers[0];
    const [lock, state, disk] = [this.#lock!, this.#state!, this.disk];
    if (top.format === 'raw') {
      return new RawWriter(storage, state, lock, memory.options, top.probed === true);
    }
    if (top.format !== 'qcow2') {
      const { options, metadata } = memory;
      const target = { storage, cache, state, lock, options, disk, metadata };
      return formatDriver(top.format)!.writing!.writer(top, target);
    }
    const { header, bitmaps } = top;
    const snapshots = () => this.snapshots().map(({ snapshot }) => snapshot);
    const whole = this.#whole!;
    const storages = { storage, dataStorage };
    const disks = { disk, whole, snapshots };
    const { cipher } = this.#top!;
    const keys = { header, bitmaps, cipher };
    return new Qcow2Writer({ ...keys, ...storages, cache, memory, lock, state, ...disks });
  }
}

/** What lies at `start` and beyond in another mapping, seen from 0. */
class TailMapping implements Mapping {
  readonly unit: number;
  readonly #whole: Mapping;
  readonly #start: () => number;

  constructor(whole: Mapping, start: () => number) {
    this.unit = whole.unit;
    this.#whole = whole;
    this.#start = start;
  }

  get size(): number {
    return this.#whole.size - this.#start();
  }

  map(offset: number, length: number, extent: Extent): void {
    this.#whole.map(this.#start() + offset, length, extent);
  }

  decompress(extent: Extent): Uint8Array {
    return this.#whole.decompress(extent);
  }
}

/** `state`: where the layer is written to. */
function activeMapping(
  layer: LayerDescription,
  source: FormatSource,
  qcow2: Qcow2Layer | null,
  state: ImageState | null,
): Mapping {
  const { format } = layer;
  if (format === 'raw') return new RawMapping(source.storage, state ?? { size: layer.fileSize });
  if (format !== 'qcow2') return formatDriver(format)!.mapping(layer.layout, source);
  const { l1TableOffset, l1Size, size } = layer.header;
  return new Qcow2Mapping(qcow2!, state ?? { l1TableOffset, l1Size, size });
}

function wholeDisk(
  layer: LayerDescription,
  qcow2: Qcow2Layer | null,
  state: ImageState | null,
): Disk | null {
  if (layer.format !== 'qcow2') return null;
  const l1 = state ?? layer.header;
  const { l2Coverage } = layer.header.geometry;
  const size = Math.min((LIMIT.MAX_L1_SIZE / 8) * l2Coverage, MOST_MAPPED);
  const whole = {
    get l1TableOffset() {
      return l1.l1TableOffset;
    },
    get l1Size() {
      return l1.l1Size;
    },
    size,
  };
  return new Disk(new Qcow2Mapping(qcow2!, whole), null);
}

function qcow2Layer(
  description: Qcow2Description,
  storage: Storage,
  data: Storage | null,
  file: number,
  cache: SliceCache,
  decompressor: ClusterDecompressor,
): Qcow2Layer {
  const { header } = description;
  const { geometry } = header;
  return {
    geometry,
    storage,
    dataStorage: data ?? storage,
    cipher: cipherOf(description),
    file,
    cache,
    compressionType: header.compressionType,
    clusterSize: geometry.clusterSize,
    decompressor,
  };
}

/** A thread has its own: it keeps what it works on. */
export function cipherOf({ key }: Pick<Qcow2Description, 'key'>): LayerCipher | null {
  if (key === null) return null;
  return { sectors: sectorCipher(key), byHostOffset: key.byHostOffset };
}

/** What a layer alone is checked by: a cache of its own, of the least size. */
export function soleSource(layer: OtherDescription): CheckedSource {
  const storage = storageOf(layer.file);
  const { files, extents } = tableFiles([storage], [layer]);
  const cache = new SliceCache(allocateSliceCache(0), 1, sliceLoader(files));
  return { storage, cache, file: 0, extents: extents[0]! };
}

/** Why a layer cannot have what lies below it; null where it can, or nothing does. */
function refusalOf(layers: readonly LayerDescription[], index: number): string | null {
  const [layer, below] = [layers[index]!, layers[index + 1]];
  if (below === undefined || layer.format === 'raw' || layer.format === 'qcow2') return null;
  const driven = below.format === 'raw' || below.format === 'qcow2' ? null : below;
  const why = formatDriver(layer.format)?.refusesBacking?.(layer, driven) ?? null;
  return why === null ? null : `${layer.file.path}: ${why}`;
}

/** A file with tables, and how they lie in it. */
interface TableFile {
  readonly storage: Storage;
  readonly layer: LayerDescription;
}

/** The layers' own files by the layers' numbers, and behind them those that layers name. */
function tableFiles(
  storages: readonly Storage[],
  layers: readonly LayerDescription[],
): { files: readonly TableFile[]; extents: readonly (readonly SourceFile[])[] } {
  const files: TableFile[] = layers.map((layer, index) => ({ layer, storage: storages[index]! }));
  const extents = layers.map((layer) => {
    if (layer.format === 'raw' || layer.format === 'qcow2') return [];
    return layer.extents.map((extent) => {
      const storage = storageOf(extent);
      return { storage, file: files.push({ layer, storage }) - 1 };
    });
  });
  return { files, extents };
}

/** Loads slices of the layers' tables; entries come in the host's byte order. */
function sliceLoader(files: readonly TableFile[]): LoadSlice {
  const scratch = new IoBuffer(SLICE_SIZE);
  return (file, offset, target) => {
    const { storage, layer } = files[file]!;
    // Others' slices may begin anywhere: what the file has of one is enough.
    const unit = layer.format === 'qcow2' ? layer.header.geometry.clusterSize : SLICE_SIZE;
    const length = Math.min(unit, SLICE_SIZE);
    const { faults } = storage;
    if (faults !== undefined && !isNamedByHeader(layer, offset)) faults.happens('l2_load');
    const n = storage.read(scratch, 0, length, offset);
    const isWhole = layer.format === 'qcow2';
    if (n < length && (isWhole ? offset + length > alignUp(storage.size(), unit) : n === 0)) {
      throw new ImageError(
        'corrupt',
        'EIO',
        `${storage.name}: table at offset 0x${offset.toString(16)} lies past the end of the file`,
        { path: storage.name, offset },
      );
    }
    scratch.bytes.fill(0, n);
    const order = layer.format === 'qcow2' ? 'big64' : formatDriver(layer.format)?.tableOrder;
    if (order === 'big64') scratch.bytes.swap64();
    if (order === 'big32') scratch.bytes.swap32();
    target.set(scratch.bytes);
  };
}

/** Whether the active L1 table or the refcount table lies there, or did when the image was opened. */
function isNamedByHeader(layer: LayerDescription, offset: number): boolean {
  if (layer.format !== 'qcow2') return false;
  const { l1TableOffset, l1Size, refcountTableOffset, refcountTableClusters, geometry } =
    layer.header;
  const isWithin = (start: number, length: number) => offset >= start && offset < start + length;
  const refcountTableSize = refcountTableClusters * geometry.clusterSize;
  return isWithin(l1TableOffset, l1Size * 8) || isWithin(refcountTableOffset, refcountTableSize);
}

function remember<V extends object>(kept: LRUCache<number, V>, key: number, make: () => V): V {
  let value = kept.get(key);
  if (value === undefined) {
    value = make();
    kept.set(key, value);
  }
  return value;
}
