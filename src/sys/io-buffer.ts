/**
 * Memory that system calls read into and write from. It never moves and lies outside the garbage
 * collector's heap, so that its address stays true as long as the object lives.
 */
import { addressOf } from './libc.js';

export class IoBuffer {
  readonly bytes: Buffer;
  readonly view: DataView;
  /** Address of `bytes[0]`. */
  readonly address: number;

  constructor(length: number) {
    this.bytes = Buffer.from(new ArrayBuffer(length));
    this.view = new DataView(this.bytes.buffer, this.bytes.byteOffset, length);
    this.address = addressOf(this.bytes);
  }

  get length(): number {
    return this.bytes.length;
  }
}
