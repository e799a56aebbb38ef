/** Writing to a raw image: the file is the disk, and the host keeps its order. */
import { ImageError } from '../errors.js';
import type { ImageLock } from '../shared/image-lock.js';
import type { ImageState } from '../shared/image-state.js';
import type { MutableStorage } from '../storage/storage.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { SECTOR_SIZE } from './extent.js';
import { type WriteOptions, writesThrough } from './write-options.js';
import { formatOf, PROBED_SIZE } from './probe.js';
import { readUpTo } from './read-bytes.js';
import { runSteps, type Steps } from './steps.js';
import { refuseAfterFailure, StickyFlush } from './sticky-flush.js';
import type { ImageWriter, Preallocation } from './writer.js';
import { isZero } from './zeroes.js';

const ZEROES_SIZE = 1 << 20;
const FIRST_BLOCK = 4096;

export class RawWriter implements ImageWriter {
  readonly #storage: MutableStorage;
  readonly #state: ImageState;
  readonly #lock: ImageLock;
  readonly #options: WriteOptions;

  readonly #probed: boolean;

  /** `probed`: it is raw by its looks alone, and must not come to look like anything else. */
  constructor(
    storage: MutableStorage,
    state: ImageState,
    lock: ImageLock,
    options: WriteOptions,
    probed: boolean,
  ) {
    this.#probed = probed;
    this.#storage = new StickyFlush(storage, state, options.cache === 'unsafe');
    this.#state = state;
    this.#lock = lock;
    this.#options = options;
  }

  write(offset: number, length: number, source: IoBuffer, at: number): void {
    const { detectZeroes } = this.#options;
    if (this.#probed && offset < PROBED_SIZE) this.#refuseOtherFormat(offset, length, source, at);
    if (detectZeroes === 'unmap' && isZero(source, at, length)) {
      this.discard(offset, length);
      return;
    }
    this.#storage.faults?.happens('write_aio');
    this.#change(() => this.#storage.write(source, at, length, offset));
    // A file of no whole number of sectors ends in one that is filled up.
    if (offset + length > this.#state.size) this.#state.size = offset + length;
  }

  /** A guest could write another format's header, with names of the host's files. */
  #refuseOtherFormat(offset: number, length: number, source: IoBuffer, at: number): void {
    const { bytes } = readUpTo(this.#storage, 0, PROBED_SIZE);
    const start = Buffer.alloc(PROBED_SIZE);
    bytes.copy(start);
    source.bytes.copy(start, offset, at, at + length);
    if (formatOf(start) === 'raw') return;
    throw new ImageError('policy', 'EPERM', 'another format is not written into a raw image', {
      limit: 'where its format was not stated',
    });
  }

  discard(offset: number, length: number): void {
    const end = Math.min(offset + length, this.#state.size);
    if (end <= offset) return;
    let punched = false;
    if (this.#options.discard === 'unmap') {
      this.#change(() => {
        punched = this.#storage.punch(offset, end - offset);
      });
    }
    if (!punched) this.zero(offset, length);
  }

  zero(offset: number, length: number): void {
    const end = Math.min(offset + length, this.#state.size);
    if (end > offset) this.#change(() => this.#writeZeroes(offset, end));
  }

  #writeZeroes(from: number, to: number): void {
    const zeroes = new IoBuffer(Math.min(to - from, ZEROES_SIZE));
    for (let at = from; at < to; at += zeroes.length) {
      this.#storage.write(zeroes, 0, Math.min(zeroes.length, to - at), at);
    }
  }

  markZero(offset: number, length: number, unmap: boolean): boolean {
    const end = Math.min(offset + length, this.#state.size);
    if (end <= offset) return true;
    let possible = false;
    this.#change(() => {
      possible = this.#storage.punch(offset, end - offset);
      if (possible && !unmap) this.#storage.reserve(offset, end - offset);
    });
    return possible;
  }

  discardClusters(offset: number, length: number): void {
    const end = Math.min(offset + length, this.#state.size);
    if (end <= offset || this.#options.discard === 'ignore') return;
    this.#change(() => void this.#storage.punch(offset, end - offset));
  }

  preallocate(offset: number, length: number): void {
    const end = Math.min(offset + length, this.#state.size);
    if (end > offset) this.#change(() => void this.#storage.reserve(offset, end - offset));
  }

  /** Beside others: the host keeps the order. */
  #change(body: () => void): void {
    this.#checkAlive();
    this.#lock.enterShared();
    try {
      body();
    } finally {
      this.#state.unflushed = true;
      this.#lock.leaveShared();
    }
    if (writesThrough(this.#options.cache)) this.flush();
  }

  resize(size: number, preallocation: Preallocation = 'off'): void {
    runSteps(this.resizeSteps(size, preallocation));
  }

  *resizeSteps(size: number, preallocation: Preallocation): Steps<void> {
    if (preallocation === 'metadata') {
      throw new ImageError('unsupported', 'ENOTSUP', 'raw images have no metadata to preallocate');
    }
    this.#checkAlive();
    this.#lock.reserve();
    this.#lock.beAlone();
    try {
      const old = this.#state.size;
      this.#storage.truncate(size);
      if (size > old && preallocation !== 'off') yield* this.#fill(old, size, preallocation);
      this.#state.size = Math.max(size, old === 0 ? this.#writeFirstBlock(size) : 0);
      this.#state.unflushed = true;
      this.#state.bumpGeneration();
    } finally {
      this.#lock.letIn();
      this.#lock.release();
    }
  }

  /**
   * As QEMU: a file that was empty gets a first block, by which it can be told how the file is aligned.
   * Answers the file's size at least.
   */
  #writeFirstBlock(size: number): number {
    if (size === 0) return 0;
    const length = size < FIRST_BLOCK ? SECTOR_SIZE : FIRST_BLOCK;
    this.#writeZeroes(0, length);
    return length;
  }

  /** Space for what is new; the file is as long as it was where there is none. */
  *#fill(from: number, to: number, how: 'falloc' | 'full'): Steps<void> {
    try {
      if (how === 'full' || !this.#storage.reserve(from, to - from)) {
        for (let at = from; at < to; at += ZEROES_SIZE) {
          yield (at - from) / (to - from);
          this.#writeZeroes(at, Math.min(to, at + ZEROES_SIZE));
        }
      }
      yield 1;
    } catch (error) {
      this.#storage.truncate(from);
      throw error;
    }
  }

  flush(): void {
    this.#lock.reserve();
    try {
      this.#checkAlive();
      if (!this.#state.unflushed) return;
      this.#state.unflushed = false;
      this.#storage.flush();
    } finally {
      this.#lock.release();
    }
  }

  close(): void {
    this.flushAll();
  }

  holdBitmaps(): void {}

  flushAll(): void {
    this.flush();
  }

  writeCompressed(): never {
    throw new ImageError('unsupported', 'ENOTSUP', 'raw images hold no compressed data');
  }

  writeVmState(): never {
    throw new ImageError('unsupported', 'ENOTSUP', 'raw images hold no VM state');
  }

  makeEmpty(): never {
    throw new ImageError('unsupported', 'ENOTSUP', 'raw images have nothing below them');
  }

  changeBackingFile(): never {
    throw new ImageError('unsupported', 'ENOTSUP', 'raw images name no backing file');
  }

  createSnapshot(): never {
    return refuse();
  }

  deleteSnapshot(): never {
    return refuse();
  }

  renameSnapshot(): never {
    return refuse();
  }

  revertTo(): never {
    return refuse();
  }

  #checkAlive(): void {
    refuseAfterFailure(this.#state, this.#storage.name);
  }
}

function refuse(): never {
  throw new ImageError('unsupported', 'ENOTSUP', 'raw images hold no snapshots');
}
