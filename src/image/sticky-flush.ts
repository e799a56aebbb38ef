/**
 * A file whose failed flush is remembered: the kernel may have dropped what it could not write, so no
 * later flush can promise anything, and writing ends (`ImageState.failed`).
 */
import { ERRNO, errnoOf, ImageError } from '../errors.js';
import type { ImageState } from '../shared/image-state.js';
import type { Faults } from '../storage/faults.js';
import type { MutableStorage } from '../storage/storage.js';
import type { IoBuffer } from '../sys/io-buffer.js';

/** Throws EIO where writing to the file of that name has ended (`ImageState.failed`). */
export function refuseAfterFailure({ failed }: ImageState, name: string): void {
  if (failed === 0) return;
  throw new ImageError('corrupt', 'EIO', `${name}: writing has ended after an error`, {
    limit: failed === ERRNO.EIO ? 'see the log' : `errno ${failed}`,
  });
}

export class StickyFlush implements MutableStorage {
  readonly #storage: MutableStorage;
  readonly #state: ImageState;
  readonly #unsafe: boolean;

  /** `unsafe`: flushes do nothing. */
  constructor(storage: MutableStorage, state: ImageState, unsafe: boolean) {
    this.#storage = storage;
    this.#state = state;
    this.#unsafe = unsafe;
  }

  get name(): string {
    return this.#storage.name;
  }

  get faults(): Faults | undefined {
    return this.#storage.faults;
  }

  flush(): void {
    if (this.#unsafe) return;
    const started = performance.now();
    try {
      this.#storage.flush();
      this.#state.countFlush(performance.now() - started);
    } catch (error) {
      this.#state.fail(errnoOf(error));
      throw error;
    }
  }

  size(): number {
    return this.#storage.size();
  }

  read(target: IoBuffer, at: number, length: number, position: number): number {
    return this.#storage.read(target, at, length, position);
  }

  write(source: IoBuffer, at: number, length: number, position: number): void {
    this.#storage.write(source, at, length, position);
  }

  nextData(position: number, end: number): number {
    return this.#storage.nextData(position, end);
  }

  nextHole(position: number, end: number): number {
    return this.#storage.nextHole(position, end);
  }

  punch(position: number, length: number): boolean {
    return this.#storage.punch(position, length);
  }

  reserve(position: number, length: number): boolean {
    return this.#storage.reserve(position, length);
  }

  truncate(size: number): void {
    this.#storage.truncate(size);
  }
}
