/**
 * What a conversion writes to: a new image, or one that is there. A new one is no whole image until it
 * is finished, whatever ends the program: a qcow2 header lacks its magic, a raw file its end. Its files are
 * open and locked from when it was made until then (`NewFiles`).
 */
import { alignUp } from '../codec/bits.js';
import { AttachedImage } from '../image/attach.js';
import type { NewFiles } from '../image/create-target.js';
import { SECTOR_SIZE } from '../image/extent.js';
import type { Qcow2Description } from '../image/description.js';
import { storageOf } from '../image/file-storage.js';
import { formatDriver } from '../image/formats.js';
import { showMagic } from '../image/header-file.js';
import { allocateImageMemory, type ImageMemory } from '../image/memory.js';
import type { BitmapEditor } from '../image/qcow2/bitmap-editor.js';
import { BulkAllocator } from '../image/qcow2/bulk-allocator.js';
import { layerClusterSize } from '../image/description.js';
import { BulkTables, showHeader } from '../image/qcow2/bulk-tables.js';
import { readHeader } from '../image/qcow2/header.js';
import { Qcow2Writer } from '../image/qcow2/writer.js';
import { FIRST_BLOCK } from '../image/raw-create.js';
import type { ImageSpec } from '../image/spec.js';
import { DEFAULT_WRITE_OPTIONS, type WriteOptions } from '../image/write-options.js';
import type { ImageWriter } from '../image/writer.js';
import type { MutableStorage } from '../storage/storage.js';
import { IoBuffer } from '../sys/io-buffer.js';
import type { CopyReport, CopyTarget } from './copy-thread.js';
import type { UnfinishedImage } from './create.js';
import type { Creation } from './creation.js';
import { type OpenDisk, openDisk } from './open-disk.js';

const CACHE_SIZE = 32 << 20;
/** Of ranges of a raw file: as block devices and direct I/O have them. */
const RAW_UNIT = 4096;

export interface ConvertTarget {
  readonly disk: OpenDisk;
  /** Of its clusters, or what it is best written in. Bytes. */
  readonly unit: number;
  /** It is zeroes, but for what its backing file has. */
  readonly isZero: boolean;
  /** All of it is written, zeroes, too. */
  readonly needsAll: boolean;
  /** What the copying threads write to; `threads`: how many, numbered from 1. */
  prepare(threads: number, layout: Float64Array): CopyTarget;
  /** What has become of the next range. */
  take(report: CopyReport): void;
  /** All of the disk is copied. */
  settle(): void;
  /** Behind that: its bitmaps, to be edited. Not of a raw one. */
  bitmaps(): BitmapEditor;
  /** Makes it whole, and durable where that is wanted; closes it. */
  finish(): void;
  /** Closes it. Of a new one nothing is left, but a file that was there before: that is empty. */
  abandon(): void;
}

/** Opens an image that is there, and none of `others` (`fileIdentity`). */
export async function openTarget(
  spec: ImageSpec,
  cache: WriteOptions['cache'],
  others: readonly string[],
): Promise<ConvertTarget> {
  const disk = await openDisk(spec, { writable: true, write: { cache }, policy: { others } });
  return new WrittenTarget(disk, { ...DEFAULT_WRITE_OPTIONS, ...spec.write, cache }, null);
}

/** Opens an image that was just made for it, by the files that it was made in. Abandons them where it throws. */
export async function openNewTarget(
  { creation, files, needsAll }: UnfinishedImage,
  cache: WriteOptions['cache'],
): Promise<ConvertTarget> {
  const { path, filename, format, keys, values } = creation;
  let disk: OpenDisk;
  try {
    const held = { image: files.image.storage.fd, data: files.data?.storage.fd };
    const policy = { unfinished: true, held };
    const encryption = { secret: values.get('encrypt.key-secret')?.text };
    const spec = { path, filename, format, keys, encryption };
    disk = await openDisk(spec, { writable: true, write: { cache }, policy });
  } catch (error) {
    files.abandon();
    throw error;
  }
  const [top, ...below] = disk.description.layers;
  const preallocation = values.get('preallocation')?.text ?? 'off';
  const write = { ...DEFAULT_WRITE_OPTIONS, cache };
  const opened = { disk, files, cache };
  if (files.image.isDevice) return new WrittenTarget(disk, write, files);
  if (top.format === 'raw') return new RawTarget(opened, sizeOf(creation), needsAll);
  if (top.format !== 'qcow2') return new WrittenTarget(disk, write, files);
  const isPlain =
    top.dataFile === null && top.key === null && below.length === 0 && preallocation === 'off';
  if (isPlain) return new BulkTarget(opened);
  const isPlainSpace = top.key !== null && preallocation !== 'off' && top.header.version < 3;
  return new WrittenTarget(disk, write, files, isPlainSpace);
}

/** Whole sectors, as raw images have. */
function sizeOf({ values }: Creation): number {
  return alignUp(values.get('size')!.number!, SECTOR_SIZE);
}

interface OpenedFiles {
  readonly disk: OpenDisk;
  readonly files: NewFiles;
  readonly cache: WriteOptions['cache'];
}

abstract class NewTarget {
  readonly isZero = true;
  readonly disk: OpenDisk;
  protected readonly storage: MutableStorage;
  readonly #files: NewFiles;
  readonly #cache: WriteOptions['cache'];

  constructor({ disk, files, cache }: OpenedFiles) {
    this.disk = disk;
    this.storage = storageOf(disk.description.layers[0].file);
    this.#files = files;
    this.#cache = cache;
  }

  /** Makes it whole, and durable where that is wanted. */
  protected abstract complete(): void;

  finish(): void {
    this.complete();
    this.disk.abandon();
    this.#files.close();
  }

  abandon(): void {
    try {
      this.#files.abandon();
    } finally {
      this.disk.abandon();
    }
  }

  protected flush(): void {
    if (this.#cache !== 'unsafe') this.storage.flush();
  }
}

/** A new file that is the disk. */
class RawTarget extends NewTarget implements ConvertTarget {
  readonly unit = RAW_UNIT;
  readonly needsAll: boolean;
  readonly #size: number;

  constructor(opened: OpenedFiles, size: number, needsAll: boolean) {
    super(opened);
    this.#size = size;
    this.needsAll = needsAll;
  }

  prepare(): CopyTarget {
    return { kind: 'raw', file: this.disk.description.layers[0].file };
  }

  take(): void {}

  settle(): void {}

  bitmaps(): BitmapEditor {
    throw new TypeError('a raw image has no bitmaps');
  }

  protected override complete(): void {
    const first = Math.min(this.#size, FIRST_BLOCK);
    const isHole = first > 0 && this.storage.nextData(0, first) === first;
    if (isHole) this.storage.write(new IoBuffer(first), 0, first, 0);
    if (this.storage.size() < this.#size) this.storage.truncate(this.#size);
    this.flush();
  }
}

/** A new qcow2 image in one file, over no other. */
class BulkTarget extends NewTarget implements ConvertTarget {
  readonly unit: number;
  readonly needsAll = false;
  readonly #tables: BulkTables;
  readonly #header;
  #allocator: BulkAllocator | undefined;
  /** Of its bitmaps, where there are some. */
  #writer: ImageWriter | null = null;

  constructor(opened: OpenedFiles) {
    super(opened);
    const [top] = opened.disk.description.layers;
    if (top.format !== 'qcow2') throw new TypeError('a qcow2 image is expected');
    this.#header = top.header;
    this.unit = top.header.geometry.clusterSize;
    this.#tables = new BulkTables(this.storage, top.header);
  }

  prepare(_threads: number, layout: Float64Array): CopyTarget {
    const { geometry } = this.#header;
    this.#allocator = new BulkAllocator(layout, geometry);
    this.#allocator.startAt(this.storage.size());
    return { kind: 'bulk', file: this.disk.description.layers[0].file, geometry };
  }

  take({ layout, end }: CopyReport): void {
    const { tables, clusters, compressed } = layout!;
    for (let n = 0; n < tables.length; n += 2) this.#tables.addTable(tables[n]!, tables[n + 1]!);
    for (let n = 0; n < clusters.length; n += 3) {
      this.#tables.map(clusters[n]!, clusters[n + 1]!, clusters[n + 2]!);
    }
    for (let n = 0; n < compressed.length; n += 3) {
      this.#tables.mapCompressed(compressed[n]!, compressed[n + 1]!, compressed[n + 2]!);
    }
    this.#tables.writeBelow(end);
  }

  settle(): void {
    this.#tables.finish(this.#allocator!);
  }

  bitmaps(): BitmapEditor {
    const { description, attach } = this.disk;
    const [top, ...below] = description.layers;
    const header = readHeader(this.storage, 'open');
    const now = { ...(top as Qcow2Description), header };
    this.#writer = attach({ ...description, layers: [now, ...below] }).writer;
    return editorOf(this.#writer);
  }

  protected override complete(): void {
    this.#writer?.close();
    // It is durable before it is an image, where the mode says that anything is durable.
    this.flush();
    showHeader(this.storage);
    this.flush();
  }
}

/** An image, new or not, through its writer. */
class WrittenTarget implements ConvertTarget {
  readonly disk: OpenDisk;
  readonly unit: number;
  readonly isZero: boolean;
  readonly needsAll = false;
  readonly #write: WriteOptions;
  readonly #files: NewFiles | null;
  readonly #hidden: MutableStorage | null;
  #memory: ImageMemory | undefined;
  #writer: ImageWriter | null = null;
  #owner = 0;

  /**
   * `files`: of a new one. `isPlainSpace`: its clusters are there, and what they read as is not known.
   */
  constructor(disk: OpenDisk, write: WriteOptions, files: NewFiles | null, isPlainSpace = false) {
    this.disk = disk;
    this.#write = write;
    this.#files = files;
    const [top] = disk.description.layers;
    const isNew = files !== null;
    this.unit = layerClusterSize(top) ?? RAW_UNIT;
    // A device holds what it held before.
    this.isZero = isNew && top.format !== 'raw' && !isPlainSpace;
    this.#hidden = isNew && top.format !== 'raw' ? storageOf(top.file) : null;
  }

  prepare(threads: number): CopyTarget {
    const { description } = this.disk;
    this.#owner = threads + 1;
    const owners = this.#owner;
    const options = { cacheSize: CACHE_SIZE, owners, write: this.#write };
    this.#memory = allocateImageMemory(description, options);
    return { kind: 'writer', description, memory: this.#memory };
  }

  take(): void {}

  settle(): void {
    this.#writer = new AttachedImage(this.disk.description, this.#memory!, this.#owner).writer;
  }

  bitmaps(): BitmapEditor {
    // What was written is in those that it had.
    this.#writer!.close();
    return editorOf(this.#writer);
  }

  finish(): void {
    this.#writer!.close();
    if (this.#hidden !== null) {
      const magic = formatDriver(this.disk.description.layers[0].format)?.writing?.magic;
      if (magic === undefined) showHeader(this.#hidden);
      else showMagic(this.#hidden, magic);
      if (this.#write.cache !== 'unsafe') this.#hidden.flush();
    }
    this.disk.abandon();
    this.#files?.close();
  }

  abandon(): void {
    try {
      this.#files?.abandon();
    } finally {
      this.disk.abandon();
    }
  }
}

function editorOf(writer: ImageWriter | null): BitmapEditor {
  if (writer instanceof Qcow2Writer) return writer.bitmaps();
  throw new TypeError('a qcow2 image is expected');
}
