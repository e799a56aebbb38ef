/** What a file of the mounted tree holds. Offsets and sizes are bytes. */
import type { Disk } from '../image/disk.js';
import type { Bitmap } from '../image/qcow2/bitmaps.js';
import type { Snapshot } from '../image/qcow2/snapshots.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import type { Partition, PartitionTable } from './partitions/table.js';

export interface Content {
  readonly size: number;
  /** Reads `length` bytes at `offset`, both within the content. */
  read(offset: number, length: number, target: IoBuffer, at: number): void;
  /** The next data or hole at or after `offset`; the size where there is none. */
  seek(offset: number, hole: boolean): number;
}

/** What a file or folder shows a part of. */
export interface Origin {
  /** The disk whose space is counted, from byte `start` on. */
  readonly disk?: Disk;
  readonly start?: number;
  readonly snapshot?: Snapshot | undefined;
  readonly partition?: Partition;
  /** The bitmap that a file tells of. */
  readonly bitmap?: Bitmap;
  /** Of a folder of partitions. */
  readonly table?: PartitionTable;
}

/** A part of a disk, as a partition is. */
export class WindowContent implements Content {
  /** Bytes from the disk's start. */
  readonly start: number;
  /** The size that it would have on a disk that is large enough. */
  readonly wholeSize: number;
  readonly #disk: Disk;

  constructor(disk: Disk, start: number, size: number) {
    this.start = start;
    this.wholeSize = size;
    this.#disk = disk;
  }

  /** A disk that is made smaller takes from it. */
  get size(): number {
    return Math.max(0, Math.min(this.wholeSize, this.#disk.size - this.start));
  }

  read(offset: number, length: number, target: IoBuffer, at: number): void {
    this.#disk.read(this.start + offset, length, target, at);
  }

  seek(offset: number, hole: boolean): number {
    const end = this.start + this.size;
    return this.#disk.seek(this.start + offset, hole, end) - this.start;
  }
}

/** Bytes in memory. */
export class BytesContent implements Content {
  readonly size: number;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.size = bytes.length;
    this.#bytes = bytes;
  }

  read(offset: number, length: number, target: IoBuffer, at: number): void {
    target.bytes.set(this.#bytes.subarray(offset, offset + length), at);
  }

  seek(offset: number, hole: boolean): number {
    return hole ? this.size : offset;
  }
}
