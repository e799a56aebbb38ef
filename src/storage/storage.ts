/** What an image format stands on: bytes by position. A file, a block device, memory in tests. */
import type { IoBuffer } from '../sys/io-buffer.js';

export interface Storage {
  /** The path, for messages. */
  readonly name: string;

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
