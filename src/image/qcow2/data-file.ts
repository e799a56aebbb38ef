/**
 * The external data file of an image that is written to: each guest cluster lies in it at its own
 * offset, and nothing there is counted. Entries say which parts of the file are true.
 *
 * What it holds is durable before the entries that name it. A range that is discarded becomes a hole
 * at once: until its entries are durable, a crash shows zeroes there or what was there before, and
 * nothing else can have come to the place.
 *
 * With `raw`, the file is the disk for who reads it alone: zeroes are written into it, and no entry
 * says that something else is read than what it holds.
 */
import { ERRNO, errnoOf } from '../../errors.js';
import type { ImageState } from '../../shared/image-state.js';
import type { Faults } from '../../storage/faults.js';
import type { MutableStorage } from '../../storage/storage.js';
import type { IoBuffer } from '../../sys/io-buffer.js';

export class DataFile {
  readonly raw: boolean;
  readonly #storage: MutableStorage;
  readonly #state: ImageState;
  readonly #punches: boolean;

  /** `punches`: whether discarded ranges become holes. */
  constructor(storage: MutableStorage, state: ImageState, raw: boolean, punches: boolean) {
    this.#storage = storage;
    this.#state = state;
    this.raw = raw;
    this.#punches = punches;
  }

  get name(): string {
    return this.#storage.name;
  }

  get faults(): Faults | undefined {
    return this.#storage.faults;
  }

  write(source: IoBuffer, at: number, length: number, offset: number): void {
    this.#storage.write(source, at, length, offset);
  }

  flush(): void {
    this.#storage.flush();
  }

  /** False where the range stays as it is. */
  punch(offset: number, length: number): boolean {
    if (!this.#punches || length <= 0) return false;
    const punched = this.#storage.punch(offset, length);
    this.#state.unflushed = true;
    return punched;
  }

  reserve(offset: number, length: number): boolean {
    return this.#storage.reserve(offset, length);
  }

  /** The disk grew: behind its old end there are zeroes. `named`: entries will name what it has there. */
  grow(from: number, to: number, named: boolean): void {
    // A file that is its own disk shows what it has there, too.
    if ((this.raw || named) && this.#storage.size() > from) this.#storage.truncate(from);
    if (this.#storage.size() < to) this.#storage.truncate(to);
    this.#state.unflushed = true;
  }

  /** The disk was cut, and that is durable. */
  cut(to: number): void {
    if (this.#storage.size() <= to) return;
    try {
      this.#storage.truncate(to);
    } catch (error) {
      // Block devices keep their size.
      if (errnoOf(error) !== ERRNO.EINVAL) throw error;
    }
    this.#state.unflushed = true;
  }
}
