/**
 * Memory that system calls read into and write from. It never moves and lies outside the garbage
 * collector's heap, so that its address stays true as long as the object lives.
 */
import { alignUp } from '../codec/bits.js';
import { addressOf } from './libc.js';

/** The kernel copies from and to a cache line's start up to twice as fast as from elsewhere. */
const ALIGNMENT = 64;

export class IoBuffer {
  readonly bytes: Buffer;
  readonly view: DataView;
  /** Address of `bytes[0]`. */
  readonly address: number;

  constructor(length: number) {
    const memory = Buffer.from(new ArrayBuffer(length + ALIGNMENT));
    const start = addressOf(memory);
    const skip = alignUp(start, ALIGNMENT) - start;
    this.bytes = memory.subarray(skip, skip + length);
    this.view = new DataView(memory.buffer, skip, length);
    this.address = start + skip;
  }

  get length(): number {
    return this.bytes.length;
  }
}
