/**
 * Writing to a QED image. New clusters come to the end of the file. Entries of tables wait in the slice cache
 * until a flush, in which all is made durable in order: data and new tables, L2 entries, L1 entries. A
 * crash leaves clusters that nothing refers to, and the need-check flag, which is set, durably, before the
 * first of them, and cleared by `flushAll`. No cluster ever becomes free: it is emptied where it is.
 */
import { alignDown, TWO_32 } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import type { ImageLock } from '../../shared/image-lock.js';
import type { ImageState } from '../../shared/image-state.js';
import { NO_ROOM, RANK, type Rank, type SliceCache, SLICE_SIZE } from '../../shared/slice-cache.js';
import type { MutableStorage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Disk } from '../disk.js';
import { EXTENT, Extent, SECTOR_SIZE } from '../extent.js';
import type { FormatTarget } from '../format.js';
import type { Steps } from '../steps.js';
import { refuseAfterFailure, StickyFlush } from '../sticky-flush.js';
import { TableSlices } from '../table-slices.js';
import type { WriteOptions } from '../write-options.js';
import type { BackingName, ImageWriter, Preallocation } from '../writer.js';
import { isZero } from '../zeroes.js';
import {
  ENTRY_SIZE,
  largestDisk,
  type QedHeader,
  setNeedCheck,
  writeBacking,
  writeSize,
} from './header.js';

const ZERO_CLUSTER = 1;
/** The image's own number in its chain. */
const TOP = 0;
/** Zeroes that are written at once. */
const ZEROES_SIZE = 1 << 20;

export class QedWriter implements ImageWriter {
  readonly #header: QedHeader;
  readonly #storage: MutableStorage;
  readonly #cache: SliceCache;
  readonly #tables: TableSlices;
  readonly #state: ImageState;
  readonly #lock: ImageLock;
  readonly #options: WriteOptions;
  readonly #disk: Disk;
  readonly #extent = new Extent();
  readonly #scratch = new IoBuffer(SLICE_SIZE);
  #cluster: IoBuffer | undefined;
  #zeroes: IoBuffer | undefined;

  constructor(header: QedHeader, { storage, cache, state, lock, options, disk }: FormatTarget) {
    this.#header = header;
    this.#storage = new StickyFlush(storage, state, options.cache === 'unsafe');
    this.#cache = cache;
    this.#tables = new TableSlices(cache, TOP);
    this.#state = state;
    this.#lock = lock;
    this.#options = options;
    this.#disk = disk;
  }

  write(offset: number, length: number, source: IoBuffer, at: number): void {
    const { detectZeroes } = this.#options;
    const zeroes = detectZeroes !== 'off' && isZero(source, at, length);
    this.#change(() => {
      if (zeroes) this.#makeZero(offset, length, detectZeroes === 'unmap');
      else {
        this.#eachPart(offset, length, (part, n) => {
          this.#writePart(part, n, source, at + (part - offset));
        });
      }
    });
  }

  discard(offset: number, length: number): void {
    this.#change(() => this.#makeZero(offset, length, this.#options.discard === 'unmap'));
  }

  zero(offset: number, length: number): void {
    this.#change(() => this.#makeZero(offset, length, false));
  }

  markZero(offset: number, length: number, unmap: boolean): boolean {
    this.#change(() => this.#makeZero(offset, length, unmap, true));
    return true;
  }

  /** As QEMU: the format lets go of nothing. */
  discardClusters(): void {}

  preallocate(offset: number, length: number): void {
    this.#change(() => {
      this.#eachPart(offset, length, (part) => {
        const found = this.#find(part);
        if (found.kind !== EXTENT.DATA) this.#allocateFor(part, found.kind === EXTENT.ZERO);
      });
    });
  }

  resize(size: number, preallocation: Preallocation = 'off'): void {
    const old = this.#state.size;
    if (preallocation !== 'off')
      throw unsupported(`Unsupported preallocation mode '${preallocation}'`);
    if (size < old) throw unsupported('Shrinking images is currently not supported');
    if (size % SECTOR_SIZE !== 0 || size > largestDisk(this.#header)) {
      throw new ImageError('invalid', 'EINVAL', 'Invalid image size specified');
    }
    this.#change(() => {
      // What lies below the disk's old end only now would show through.
      const below = Math.min(size, this.#disk.backing?.size ?? 0);
      if (below > old) {
        this.#makeZero(old, below - old, false);
        this.#writeTables();
      }
      writeSize(this.#storage, size);
      this.#lock.beAlone();
      try {
        this.#state.size = size;
        this.#state.bumpGeneration();
      } finally {
        this.#lock.letIn();
      }
    });
  }

  *resizeSteps(size: number, preallocation: Preallocation): Steps<void> {
    yield 1;
    this.resize(size, preallocation);
  }

  flush(): void {
    this.#reserved(() => this.#flushAll(false));
  }

  flushAll(): void {
    this.#reserved(() => this.#flushAll(true));
  }

  close(): void {
    this.flushAll();
  }

  holdBitmaps(): void {}

  #flushAll(clean: boolean): void {
    const state = this.#state;
    if (state.unflushed) {
      state.unflushed = false;
      this.#writeTables();
    }
    if (!clean || !state.dirty) return;
    setNeedCheck(this.#storage, false);
    this.#storage.flush();
    state.dirty = false;
  }

  /** Makes all durable, each before what refers to it. */
  #writeTables(): void {
    this.#storage.flush();
    for (const rank of [RANK.L2, RANK.L1]) {
      if (this.#cache.dirtyCount(rank) === 0) continue;
      this.#cache.writeBack(rank, (_file, offset, slice) => {
        this.#scratch.bytes.set(slice);
        this.#storage.write(this.#scratch, 0, SLICE_SIZE, offset);
      });
      this.#storage.flush();
    }
  }

  #reserved(body: () => void): void {
    this.#lock.reserve();
    try {
      refuseAfterFailure(this.#state, this.#storage.name);
      body();
    } finally {
      this.#lock.release();
    }
  }

  #change(body: () => void): void {
    this.#reserved(() => {
      this.#state.unflushed = true;
      body();
      const { cache } = this.#options;
      if (cache === 'writethrough' || cache === 'directsync') this.#flushAll(false);
    });
  }

  /** Calls `body` with each part of the range that lies in one cluster. */
  #eachPart(offset: number, length: number, body: (offset: number, length: number) => void): void {
    const { clusterSize } = this.#header;
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const next = Math.min(end, alignDown(at, clusterSize) + clusterSize);
      body(at, next - at);
      at = next;
    }
  }

  /** What lies at the offset: as far as the cluster's kind and its place go. */
  #find(offset: number): Extent {
    this.#disk.mapping.map(offset, 1, this.#extent);
    return this.#extent;
  }

  #writePart(offset: number, length: number, source: IoBuffer, at: number): void {
    const { kind, hostOffset } = this.#find(offset);
    if (kind === EXTENT.DATA) {
      this.#storage.write(source, at, length, hostOffset);
      return;
    }
    const { clusterSize } = this.#header;
    const start = alignDown(offset, clusterSize);
    const below = kind === EXTENT.ZERO ? 0 : this.#bytesBelow(start);
    if (below === 0 || length === clusterSize) {
      const host = this.#newCluster();
      this.#storage.write(source, at, length, host + (offset - start));
      this.#link(start, host);
      return;
    }
    const cluster = this.#readBelow(start, below);
    source.bytes.copy(cluster.bytes, offset - start, at, at + length);
    const host = this.#newCluster();
    this.#storage.write(cluster, 0, clusterSize, host);
    this.#link(start, host);
  }

  /** A cluster of its own, that reads as before. */
  #allocateFor(offset: number, zero: boolean): void {
    const { clusterSize } = this.#header;
    const start = alignDown(offset, clusterSize);
    const below = zero ? 0 : this.#bytesBelow(start);
    const cluster = below === 0 ? null : this.#readBelow(start, below);
    const host = this.#newCluster();
    if (cluster === null) this.#storage.reserve(host, clusterSize);
    else this.#storage.write(cluster, 0, clusterSize, host);
    this.#link(start, host);
  }

  /** Bytes of the backing file in the cluster at `start`. */
  #bytesBelow(start: number): number {
    const size = Math.min(this.#disk.backing?.size ?? 0, this.#state.size);
    return Math.max(0, Math.min(this.#header.clusterSize, size - start));
  }

  #readBelow(start: number, length: number): IoBuffer {
    this.#cluster ??= new IoBuffer(this.#header.clusterSize);
    this.#cluster.bytes.fill(0);
    this.#disk.backing!.read(start, length, this.#cluster, 0);
    return this.#cluster;
  }

  /** `marks`: also where nothing lies below; something may come there. */
  #makeZero(offset: number, length: number, unmap: boolean, marks = false): void {
    const { clusterSize } = this.#header;
    this.#eachPart(offset, length, (part, n) => {
      const { kind, hostOffset } = this.#find(part);
      if (kind === EXTENT.ZERO) return;
      if (kind === EXTENT.DATA) {
        if (!unmap || !this.#storage.punch(hostOffset, n)) this.#writeZeroes(hostOffset, n);
        return;
      }
      const start = alignDown(part, clusterSize);
      const below = this.#bytesBelow(start);
      if (below === 0 && !marks) return;
      // The whole of the cluster, or of what the disk has of its last one.
      const isWhole = part === start && (n === clusterSize || part + n >= this.#state.size);
      if (isWhole) this.#link(start, ZERO_CLUSTER);
      else this.#writePart(part, n, this.#zeroBytes(), 0);
    });
  }

  #zeroBytes(): IoBuffer {
    this.#zeroes ??= new IoBuffer(Math.max(ZEROES_SIZE, this.#header.clusterSize));
    return this.#zeroes;
  }

  #writeZeroes(position: number, length: number): void {
    const zeroes = this.#zeroBytes();
    for (let done = 0; done < length; done += zeroes.length) {
      this.#storage.write(zeroes, 0, Math.min(zeroes.length, length - done), position + done);
    }
  }

  #newCluster(): number {
    return this.#append(this.#header.clusterSize);
  }

  /** Whole clusters at the file's end, which read as zeroes. */
  #append(length: number): number {
    const { clusterSize } = this.#header;
    this.#markDirty();
    const offset = this.#state.virginFrom * clusterSize;
    // A cluster that the file lacks in part is none to QEMU.
    this.#storage.truncate(offset + length);
    this.#state.virginFrom += length / clusterSize;
    return offset;
  }

  #markDirty(): void {
    if (this.#state.dirty) return;
    setNeedCheck(this.#storage, true);
    this.#storage.flush();
    this.#state.dirty = true;
  }

  /** Lets the L2 entry of the cluster at `start` be `value`. */
  #link(start: number, value: number): void {
    const { clusterSize, tableBytes, l1TableOffset } = this.#header;
    const entries = tableBytes / ENTRY_SIZE;
    const cluster = start / clusterSize;
    const l1Index = Math.floor(cluster / entries);
    const l1Position = l1TableOffset + l1Index * ENTRY_SIZE;
    this.#markDirty();
    this.#tables.look64(l1Position);
    let table = this.#tables.high * TWO_32 + this.#tables.low;
    if (table === 0) {
      table = this.#append(tableBytes);
      this.#cache.forget(TOP, table, tableBytes, SLICE_SIZE);
      this.#setEntry(l1Position, table, RANK.L1);
    }
    this.#setEntry(table + (cluster - l1Index * entries) * ENTRY_SIZE, value, RANK.L2);
  }

  #setEntry(position: number, value: number, rank: Rank): void {
    const slice = alignDown(position, SLICE_SIZE);
    let index = this.#cache.edit(TOP, slice, rank);
    if (index === NO_ROOM) {
      this.#writeTables();
      index = this.#cache.edit(TOP, slice, rank);
    }
    const at = index + (position - slice) / 4;
    this.#cache.words[at] = value % TWO_32;
    this.#cache.words[at + 1] = Math.floor(value / TWO_32);
    this.#cache.endEdit(index);
  }

  writeCompressed(): never {
    throw unsupported('QED images hold no compressed data');
  }

  writeVmState(): never {
    throw unsupported('QED images hold no VM state');
  }

  makeEmpty(): never {
    throw unsupported('QED images cannot be emptied');
  }

  changeBackingFile(backing: BackingName | null): void {
    this.#reserved(() => {
      this.#flushAll(true);
      writeBacking(this.#storage, backing);
      this.#storage.flush();
    });
  }

  createSnapshot(): never {
    throw unsupported('QED images hold no snapshots');
  }

  deleteSnapshot(): never {
    throw unsupported('QED images hold no snapshots');
  }

  renameSnapshot(): never {
    throw unsupported('QED images hold no snapshots');
  }

  revertTo(): never {
    throw unsupported('QED images hold no snapshots');
  }
}

function unsupported(message: string): ImageError {
  return new ImageError('unsupported', 'ENOTSUP', message);
}
