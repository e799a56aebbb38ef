/** Bytes in memory, for tests and for what is made up (no file needed). */
import type { IoBuffer } from '../sys/io-buffer.js';
import type { Storage } from './storage.js';

export class MemoryStorage implements Storage {
  readonly name: string;
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array, name = 'memory') {
    this.bytes = bytes;
    this.name = name;
  }

  size(): number {
    return this.bytes.length;
  }

  read(target: IoBuffer, at: number, length: number, position: number): number {
    const found = this.bytes.subarray(position, position + length);
    target.bytes.set(found, at);
    return found.length;
  }

  nextData(position: number, end: number): number {
    return Math.min(position, end);
  }

  nextHole(_position: number, end: number): number {
    return end;
  }
}
