/** A part of another storage, seen from 0: what raw images with an offset and a size are. */
import { ImageError } from '../errors.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import type { MutableStorage } from './storage.js';

export class WindowStorage implements MutableStorage {
  readonly name: string;
  readonly #whole: MutableStorage;
  readonly #offset: number;
  readonly #size: number | undefined;

  /** `size`: bytes, fixed; to the end of `whole`, and growing with it, where it is undefined. */
  constructor(whole: MutableStorage, offset: number, size: number | undefined) {
    this.name = whole.name;
    this.#whole = whole;
    this.#offset = offset;
    this.#size = size;
  }

  size(): number {
    return this.#size ?? Math.max(0, this.#whole.size() - this.#offset);
  }

  read(target: IoBuffer, at: number, length: number, position: number): number {
    const n = Math.max(0, Math.min(length, this.#limit() - position));
    return this.#whole.read(target, at, n, this.#offset + position);
  }

  nextData(position: number, end: number): number {
    return this.#seek('nextData', position, end);
  }

  nextHole(position: number, end: number): number {
    return this.#seek('nextHole', position, end);
  }

  write(source: IoBuffer, at: number, length: number, position: number): void {
    if (position + length > this.#limit()) throw this.#fixed();
    this.#whole.write(source, at, length, this.#offset + position);
  }

  flush(): void {
    this.#whole.flush();
  }

  punch(position: number, length: number): boolean {
    const n = Math.min(length, this.#limit() - position);
    return n <= 0 || this.#whole.punch(this.#offset + position, n);
  }

  reserve(position: number, length: number): boolean {
    if (position + length > this.#limit()) throw this.#fixed();
    return this.#whole.reserve(this.#offset + position, length);
  }

  truncate(size: number): void {
    if (this.#size !== undefined) {
      if (size !== this.#size) throw this.#fixed();
      return;
    }
    this.#whole.truncate(this.#offset + size);
  }

  #seek(what: 'nextData' | 'nextHole', position: number, end: number): number {
    const found = this.#whole[what](this.#offset + position, this.#offset + end);
    return Math.min(found - this.#offset, end);
  }

  /** Where what is written must end. */
  #limit(): number {
    return this.#size ?? Number.POSITIVE_INFINITY;
  }

  #fixed(): ImageError {
    return new ImageError('policy', 'ENOTSUP', 'Cannot resize fixed-size raw disks');
  }
}
