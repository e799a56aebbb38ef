/**
 * What changes the image behind a mount: writes to the disk and its partitions, and what is done to
 * them as files. Nothing here may be called within the image: the writer takes its own locks.
 */
import { alignUp } from '../codec/bits.js';
import { ImageError } from '../errors.js';
import type { Disk } from '../image/disk.js';
import { SECTOR_SIZE } from '../image/extent.js';
import type { ImageWriter } from '../image/writer.js';
import type { MountState } from '../shared/mount-state.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import { WindowContent } from './content.js';
import { type Node, partitionOf, viewOf } from './node.js';
import { isForWriting, type OpenFiles } from './open-files.js';
import { SnapshotChanges } from './snapshot-changes.js';
import type { Tree } from './tree.js';

const KEEP_SIZE = 0x01;
const PUNCH_HOLE = 0x02;
const ZERO_RANGE = 0x10;
const PERMISSIONS = 0o7777;

/** What is to be set; what is not given stays. */
export interface NewAttributes {
  readonly mode?: number | undefined;
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  readonly size?: number | undefined;
}

export interface ChangesOptions {
  readonly tree: Tree;
  readonly disk: Disk;
  readonly writer: ImageWriter;
  readonly files: OpenFiles;
  readonly state: MountState;
}

export class Changes {
  readonly files: OpenFiles;
  readonly snapshots: SnapshotChanges;
  readonly #tree: Tree;
  readonly #disk: Disk;
  readonly #writer: ImageWriter;
  readonly #state: MountState;

  constructor({ tree, disk, writer, files, state }: ChangesOptions) {
    this.files = files;
    this.snapshots = new SnapshotChanges({ tree, writer, files, state });
    this.#tree = tree;
    this.#disk = disk;
    this.#writer = writer;
    this.#state = state;
  }

  /** Why the last control of this mount failed. */
  failure(id: number): string | undefined {
    return id === this.#tree.rootId ? this.#state.failure : undefined;
  }

  /**
   * Writes `length` bytes of `source` from byte `at` on; answers how many. The disk grows like any
   * file, to whole sectors; a partition ends where it ends, like a device. With `durable` it returns
   * when they are.
   */
  write(
    id: number,
    handle: number,
    offset: number,
    length: number,
    source: IoBuffer,
    at: number,
    durable: boolean,
  ): number {
    const window = this.#target(id, handle);
    const start = window === undefined ? 0 : window.start;
    const present = this.#present(window, offset, length);
    if (present === 0) return 0;
    try {
      if (window === undefined) this.#growTo(offset + length);
      this.#writer.write(start + offset, present, source, at);
    } finally {
      this.#state.markChanged();
    }
    this.#tree.counters.wrote(present);
    if (durable) this.#writer.flush();
    return present;
  }

  /** fallocate(2): sets space aside, punches a hole, or makes zeroes. */
  fallocate(id: number, handle: number, mode: number, offset: number, length: number): void {
    const window = this.#target(id, handle);
    const keepSize = (mode & KEEP_SIZE) !== 0;
    const what = mode & ~KEEP_SIZE;
    const known = what === 0 || what === ZERO_RANGE || (what === PUNCH_HOLE && keepSize);
    if (!known) throw new ImageError('unsupported', 'EOPNOTSUPP', `fallocate: mode ${mode}`);
    const end = offset + length;
    try {
      if (!keepSize && window !== undefined && end > window.size) throw noSpace();
      if (!keepSize && window === undefined) this.#growTo(end);
      const { size } = window ?? this.#disk;
      const present = Math.min(end, size) - offset;
      if (present <= 0) return;
      const from = (window?.start ?? 0) + offset;
      if (what === PUNCH_HOLE) this.#writer.discard(from, present);
      else if (what === ZERO_RANGE) this.#writer.zero(from, present);
      else this.#writer.preallocate(from, present);
    } finally {
      this.#state.markChanged();
    }
  }

  /**
   * Sets the size of the disk, in whole sectors. A partition's can be set to what it is; so can mode
   * and owner of any file.
   */
  setAttributes(node: Node, handle: number, wanted: NewAttributes): void {
    const { mode, uid, gid } = node.attributes;
    const { size } = wanted;
    const same =
      (wanted.mode === undefined || (wanted.mode & PERMISSIONS) === (mode & PERMISSIONS)) &&
      (wanted.uid === undefined || wanted.uid === uid) &&
      (wanted.gid === undefined || wanted.gid === gid);
    if (!same) throw new ImageError('policy', 'EPERM', 'modes and owners are the image’s');
    if (size === undefined) return;
    if (node.kind === 'directory') throw new ImageError('invalid', 'EISDIR', 'is a directory');
    if (viewOf(node.id) !== 0 || !this.#tree.isOfView(node.id)) {
      throw new ImageError('policy', 'EACCES', 'the file is read-only');
    }
    const window = this.files.window(handle) ?? node.content;
    if (!(window instanceof WindowContent)) this.#resize(size);
    else if (size !== window.size) {
      throw new ImageError('policy', 'EPERM', 'a partition keeps its size');
    }
  }

  /** All that was written is durable when it returns; of every file, as they are one image. */
  flush(): void {
    this.#writer.flush();
  }

  /** A file is closed: what was written through it is made durable. */
  close(handle: number): void {
    if (isForWriting(handle)) this.#writer.flush();
  }

  /**
   * The partition to write to; undefined where it is the disk itself. Throws for every other file:
   * that of a snapshot is open for writing where it has just been made.
   */
  #target(id: number, handle: number): WindowContent | undefined {
    if (this.#tree.isDisk(id)) return undefined;
    const window = this.files.window(handle);
    if (window !== undefined) return window;
    if (viewOf(id) === 0 && partitionOf(id) > 0) {
      throw new ImageError('invalid', 'EBADF', 'the partition is not open');
    }
    throw new ImageError('policy', 'EPERM', 'a snapshot cannot be written');
  }

  /** How much of a write has room: all, or what a partition has from there on. */
  #present(window: WindowContent | undefined, offset: number, length: number): number {
    if (window === undefined || length === 0) return length;
    const present = Math.min(length, window.size - offset);
    if (present <= 0) throw noSpace();
    return present;
  }

  #growTo(end: number): void {
    if (end <= this.#disk.size) return;
    this.#state.lockSize();
    try {
      // Somebody may have been faster.
      if (end > this.#disk.size) this.#writer.resize(wholeSectors(end));
    } finally {
      this.#state.unlockSize();
    }
  }

  #resize(size: number): void {
    this.#state.lockSize();
    try {
      const whole = wholeSectors(size);
      if (whole !== this.#disk.size) this.#writer.resize(whole);
    } finally {
      this.#state.unlockSize();
      this.#state.markChanged();
    }
  }
}

function wholeSectors(size: number): number {
  // What the kernel sends as 64 bits is no exact number up there.
  if (size > Number.MAX_SAFE_INTEGER - SECTOR_SIZE) {
    throw new ImageError('invalid', 'EFBIG', `${size} bytes are too many`);
  }
  return alignUp(size, SECTOR_SIZE);
}

function noSpace(): ImageError {
  return new ImageError('policy', 'ENOSPC', 'the partition ends there');
}
