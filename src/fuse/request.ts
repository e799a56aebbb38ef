/** One request as its handler sees it: a view of the bytes that the kernel sent. */
import { TWO_32 } from '../codec/bits.js';
import type { FieldTable, Struct, ValuesOf } from '../codec/struct.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import { IN_HEADER } from './abi.js';

export class Request {
  readonly buffer: IoBuffer;
  /** Bytes of the request, its header included. */
  length = 0;
  /** As in the reply: what is taken from the kernel's node numbers. */
  base = 0;

  constructor(buffer: IoBuffer) {
    this.buffer = buffer;
  }

  get view(): DataView {
    return this.buffer.view;
  }

  get opcode(): number {
    return this.view.getUint32(IN_HEADER.offsets.opcode, true);
  }

  /** The node's number within its session. */
  get nodeid(): number {
    return this.kernelNodeid - this.base;
  }

  /** The number that the kernel knows it by. */
  get kernelNodeid(): number {
    return this.#u64(IN_HEADER.offsets.nodeid);
  }

  /** The request's number, in halves: it goes back unchanged. */
  get uniqueLow(): number {
    return this.view.getUint32(IN_HEADER.offsets.unique, true);
  }

  get uniqueHigh(): number {
    return this.view.getUint32(IN_HEADER.offsets.unique + 4, true);
  }

  get uid(): number {
    return this.view.getUint32(IN_HEADER.offsets.uid, true);
  }

  /** Of the process that asks; 0 where it is none of this process' PID namespace. */
  get pid(): number {
    return this.view.getUint32(IN_HEADER.offsets.pid, true);
  }

  /** A 64-bit field of the opcode's struct, at `offset` in it. */
  u64(offset: number): number {
    return this.#u64(IN_HEADER.size + offset);
  }

  u32(offset: number): number {
    return this.view.getUint32(IN_HEADER.size + offset, true);
  }

  /** The opcode's struct as an object; not for the I/O path. */
  read<T extends FieldTable>(layout: Struct<T>): ValuesOf<T> {
    return layout.read(this.view, IN_HEADER.size);
  }

  /** The text that begins `offset` bytes behind the header, up to its NUL. */
  text(offset: number): string {
    const { bytes } = this.buffer;
    const start = IN_HEADER.size + offset;
    const end = bytes.indexOf(0, start);
    return bytes.toString('utf8', start, end < 0 || end > this.length ? this.length : end);
  }

  /** The two texts that begin there, one behind the other. */
  texts(offset: number): [string, string] {
    const first = this.text(offset);
    // In bytes as they were sent: a text that is not UTF-8 has another length when it is encoded.
    const end = this.buffer.bytes.indexOf(0, IN_HEADER.size + offset);
    const next = end < 0 || end >= this.length ? this.length : end + 1;
    return [first, this.text(next - IN_HEADER.size)];
  }

  /** The bytes there; undefined where the request does not hold them. */
  bytes(offset: number, length: number): Buffer | undefined {
    const start = IN_HEADER.size + offset;
    if (start + length > this.length) return undefined;
    return this.buffer.bytes.subarray(start, start + length);
  }

  #u64(at: number): number {
    return this.view.getUint32(at, true) + this.view.getUint32(at + 4, true) * TWO_32;
  }
}
