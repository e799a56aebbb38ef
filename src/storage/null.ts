/** A disk of no file: it reads as zeroes, and what is written to it is gone. */
import { ImageError } from '../errors.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import type { MutableStorage } from './storage.js';

export class NullStorage implements MutableStorage {
  readonly name: string;
  readonly #size: number;
  readonly #isHole: boolean;

  /** `isHole`: it tells that it is zeroes. */
  constructor(name: string, { size, isHole }: { size: number; isHole: boolean }) {
    this.name = name;
    this.#size = size;
    this.#isHole = isHole;
  }

  size(): number {
    return this.#size;
  }

  read(target: IoBuffer, at: number, length: number, position: number): number {
    const n = Math.max(0, Math.min(length, this.#size - position));
    target.bytes.fill(0, at, at + n);
    return n;
  }

  nextData(position: number, end: number): number {
    return this.#isHole ? end : Math.min(position, end);
  }

  nextHole(position: number, end: number): number {
    return this.#isHole ? Math.min(position, end) : end;
  }

  write(_source: IoBuffer, _at: number, length: number, position: number): void {
    if (position + length > this.#size) throw this.#fixed();
  }

  flush(): void {}

  punch(): boolean {
    return true;
  }

  reserve(position: number, length: number): boolean {
    if (position + length > this.#size) throw this.#fixed();
    return true;
  }

  truncate(size: number): void {
    if (size !== this.#size) throw this.#fixed();
  }

  #fixed(): ImageError {
    return new ImageError('policy', 'ENOTSUP', 'Image format driver does not support resize');
  }
}
