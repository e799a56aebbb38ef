/**
 * Writing to images with two levels of tables and no counts (QED, qcow): what each call does, under the locks.
 * Where data comes to is `table-data.ts`; the order of it all, and what a crash leaves, is that of
 * `EntryTables`.
 */
import { ImageError } from '../errors.js';
import type { ImageLock } from '../shared/image-lock.js';
import type { ImageState } from '../shared/image-state.js';
import type { MutableStorage } from '../storage/storage.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import type { SectorCipher } from './crypto/cipher-key.js';
import type { Disk } from './disk.js';
import { EntryTables } from './entry-tables.js';
import type { FormatTarget } from './format.js';
import type { Steps } from './steps.js';
import { refuseAfterFailure, StickyFlush } from './sticky-flush.js';
import { TableData } from './table-data.js';
import type { TwoLevels } from './table-guard.js';
import type { WriteOptions } from './write-options.js';
import type { BackingName, ImageWriter, Preallocation } from './writer.js';
import { isZero } from './zeroes.js';

export interface TableWriterParts {
  /** As messages call it. */
  readonly format: string;
  readonly levels: TwoLevels;
  /** The L2 entry of clusters that are zeroes, whatever lies below; null where the format has none. */
  readonly zeroEntry: number | null;
  /** Of guest clusters, whose sectors are numbered as on the disk. */
  readonly cipher: SectorCipher | null;
}

export abstract class TableWriter implements ImageWriter {
  protected readonly storage: MutableStorage;
  protected readonly state: ImageState;
  protected readonly lock: ImageLock;
  protected readonly disk: Disk;
  protected readonly tables: EntryTables;
  readonly #format: string;
  readonly #zeroEntry: number | null;
  readonly #options: WriteOptions;
  readonly #data: TableData;

  constructor({ format, levels, zeroEntry, cipher }: TableWriterParts, target: FormatTarget) {
    const { storage, cache, state, lock, options, disk, metadata } = target;
    this.#format = format;
    this.#zeroEntry = zeroEntry;
    this.storage = new StickyFlush(storage, state, options.cache === 'unsafe');
    this.state = state;
    this.lock = lock;
    this.disk = disk;
    this.#options = options;
    const beforeChange = () => this.beforeChange();
    const files = { storage: this.storage, cache, state, metadata };
    this.tables = new EntryTables({ ...files, levels, beforeChange });
    const { clusterSize } = levels;
    const ways = { clusterSize, zeroEntry, cipher };
    this.#data = new TableData({ storage: this.storage, disk, tables: this.tables, ...ways });
  }

  /** With the reservation, before the file grows or an entry changes. */
  protected beforeChange(): void {}

  /** With the reservation, when all is durable: leaves the image as if it were closed. */
  protected leaveClean(): void {}

  write(offset: number, length: number, source: IoBuffer, at: number): void {
    const { detectZeroes } = this.#options;
    const zeroes = detectZeroes !== 'off' && isZero(source, at, length);
    this.change(() => {
      if (zeroes) this.makeZero(offset, length, detectZeroes === 'unmap');
      else this.#data.write(offset, length, source, at);
    });
  }

  discard(offset: number, length: number): void {
    this.change(() => this.makeZero(offset, length, this.#options.discard === 'unmap'));
  }

  zero(offset: number, length: number): void {
    this.change(() => this.makeZero(offset, length, false));
  }

  markZero(offset: number, length: number, unmap: boolean): boolean {
    if (this.#zeroEntry === null) return false;
    this.change(() => this.makeZero(offset, length, unmap, true));
    return true;
  }

  /** As QEMU: the format lets go of nothing. */
  discardClusters(): void {}

  preallocate(offset: number, length: number): void {
    this.change(() => this.#data.preallocate(offset, length));
  }

  resize(_size: number, _preallocation?: Preallocation): void {
    throw unsupported('Image format driver does not support resize');
  }

  *resizeSteps(size: number, preallocation: Preallocation): Steps<void> {
    yield 1;
    this.resize(size, preallocation);
  }

  flush(): void {
    this.reserved(() => this.flushTables());
  }

  flushAll(): void {
    this.reserved(() => this.leaveFlushed());
  }

  close(): void {
    this.flushAll();
  }

  holdBitmaps(): void {}

  /** With the reservation. */
  protected flushTables(): void {
    const { state } = this;
    if (!state.unflushed) return;
    state.unflushed = false;
    this.tables.flush();
  }

  /** With the reservation. */
  protected leaveFlushed(): void {
    this.flushTables();
    this.leaveClean();
  }

  protected reserved(body: () => void): void {
    this.lock.reserve();
    try {
      refuseAfterFailure(this.state, this.storage.name);
      body();
    } finally {
      this.lock.release();
    }
  }

  protected change(body: () => void): void {
    this.reserved(() => {
      this.state.unflushed = true;
      body();
      const { cache } = this.#options;
      if (cache === 'writethrough' || cache === 'directsync') this.flushTables();
    });
  }

  /** With the reservation: see `TableData`. */
  protected makeZero(offset: number, length: number, unmap: boolean, marks = false): void {
    this.#data.makeZero(offset, length, unmap, marks);
  }

  writeCompressed(_offset: number, _data: Uint8Array, _length: number): void {
    throw unsupported(`${this.#format} images hold no compressed data`);
  }

  writeVmState(): never {
    throw unsupported(`${this.#format} images hold no VM state`);
  }

  makeEmpty(): void {
    throw unsupported(`${this.#format} images cannot be emptied`);
  }

  changeBackingFile(_backing: BackingName | null): void {
    throw unsupported(`the backing file of ${this.#format} images stays as it is`);
  }

  createSnapshot(): never {
    throw this.#withoutSnapshots();
  }

  deleteSnapshot(): never {
    throw this.#withoutSnapshots();
  }

  renameSnapshot(): never {
    throw this.#withoutSnapshots();
  }

  revertTo(): never {
    throw this.#withoutSnapshots();
  }

  #withoutSnapshots(): ImageError {
    return unsupported(`${this.#format} images hold no snapshots`);
  }
}

/** An ENOTSUP error. */
export function unsupported(message: string): ImageError {
  return new ImageError('unsupported', 'ENOTSUP', message);
}
