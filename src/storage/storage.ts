/** What an image format stands on: bytes by position. A file, a block device, memory in tests. */
import type { IoBuffer } from '../sys/io-buffer.js';
import type { Faults } from './faults.js';

export interface Storage {
  /** The path, for messages. */
  readonly name: string;
  /** Only of one that fails on purpose: whom to tell of what happens in the image. */
  readonly faults?: Faults | undefined;

  /** Size in bytes, asked afresh at each call. */
  size(): number;

  /**
   * Reads `length` bytes at `position` into `target` from byte `at` on. Answers how many bytes
   * there were: fewer than `length` only at the end.
   */
  read(target: IoBuffer, at: number, length: number, position: number): number;

  /** The first byte at or after `position` that is data, at most `end`. */
  nextData(position: number, end: number): number;

  /** The first byte at or after `position` that lies in a hole, at most `end`. */
  nextHole(position: number, end: number): number;
}

/** Bytes that can be changed. What is written is durable only once `flush` has returned. */
export interface MutableStorage extends Storage {
  /**
   * Writes `length` bytes of `source` from byte `at` on to `position`, growing the file where it
   * ends earlier. All of them, or it throws a SysError; how many then got there is not known.
   */
  write(source: IoBuffer, at: number, length: number, position: number): void;

  /** Returns when all that was written before is durable. Throws a SysError: it may not be, then. */
  flush(): void;

  /**
   * Gives the space of a range back to the host; it reads as zeroes then. False where the host cannot
   * do that: nothing is changed.
   */
  punch(position: number, length: number): boolean;

  /** Makes sure that writing the range will not lack space; what is read stays the same. */
  reserve(position: number, length: number): boolean;

  /** Cuts the file, or lets it grow by zeroes. */
  truncate(size: number): void;
}
