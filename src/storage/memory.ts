/** Bytes in memory, for tests and for what is made up (no file needed). */
import type { IoBuffer } from '../sys/io-buffer.js';
import type { MutableStorage } from './storage.js';

export class MemoryStorage implements MutableStorage {
  readonly name: string;
  bytes: Uint8Array;

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

  write(source: IoBuffer, at: number, length: number, position: number): void {
    if (position + length > this.bytes.length) this.truncate(position + length);
    this.bytes.set(source.bytes.subarray(at, at + length), position);
  }

  flush(): void {}

  punch(position: number, length: number): boolean {
    this.bytes.fill(0, position, position + length);
    return true;
  }

  reserve(position: number, length: number): boolean {
    if (position + length > this.bytes.length) this.truncate(position + length);
    return true;
  }

  truncate(size: number): void {
    const bytes = new Uint8Array(size);
    bytes.set(this.bytes.subarray(0, size));
    this.bytes = bytes;
  }
}
