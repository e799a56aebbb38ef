/**
 * One record per worker in shared memory: which request it is serving, in which image of many. When a worker
 * dies, the main thread reads there whom to answer.
 */

const RECORD_WORDS = 16; // A cache line each, so that workers do not slow each other down.
const BUSY = 0;
const UNIQUE_LOW = 1;
const UNIQUE_HIGH = 2;
const MEMBER = 3;
const COUNTED = 4;

export interface Unique {
  readonly low: number;
  readonly high: number;
}

export function allocateWorkerStatus(workers: number): SharedArrayBuffer {
  return new SharedArrayBuffer(workers * RECORD_WORDS * 4);
}

export class WorkerStatus {
  readonly #words: Int32Array;

  /** The record of worker `index`, from 0. */
  constructor(memory: SharedArrayBuffer, index: number) {
    this.#words = new Int32Array(memory, index * RECORD_WORDS * 4, RECORD_WORDS);
  }

  /** The worker begins with the request of that `unique` number, given as two 32-bit halves. */
  begin(low: number, high: number): void {
    this.#words[UNIQUE_LOW] = low;
    this.#words[UNIQUE_HIGH] = high;
    this.#words[COUNTED] = 0;
    Atomics.store(this.#words, BUSY, 1);
  }

  /** The reply is on its way, or none is due. */
  end(): void {
    Atomics.store(this.#words, BUSY, 0);
  }

  /** The worker begins to use the image of that number: `Members`. */
  enter(member: number): void {
    Atomics.store(this.#words, MEMBER, member);
  }

  leave(): void {
    Atomics.store(this.#words, MEMBER, 0);
  }

  /** The image that it uses; 0 for none. */
  get member(): number {
    return Atomics.load(this.#words, MEMBER);
  }

  /** The image of which the request has opened a file, that no answer tells of yet; 0 for none. */
  get counted(): number {
    return Atomics.load(this.#words, COUNTED);
  }
  set counted(member: number) {
    Atomics.store(this.#words, COUNTED, member);
  }

  /** The request that was begun and not ended. */
  pending(): Unique | undefined {
    if (Atomics.load(this.#words, BUSY) === 0) return undefined;
    return { low: this.#words[UNIQUE_LOW]! >>> 0, high: this.#words[UNIQUE_HIGH]! >>> 0 };
  }
}
