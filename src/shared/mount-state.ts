/** What the threads of a mount tell each other: that it ends, that something was written, why not. */
import { isHeldBy, lock, unlock } from './futex.js';

// Words.
const STOPPED = 0;
const CHANGED = 1;
const SIZE_LOCK = 2;
const FAILURE_LENGTH = 3;
const WORDS = 16;

/** Bytes of the last failure's text. */
const FAILURE_SIZE = 1024;

export function allocateMountState(): SharedArrayBuffer {
  return new SharedArrayBuffer(WORDS * 4 + FAILURE_SIZE);
}

export class MountState {
  readonly #words: Int32Array;
  readonly #failure: Uint8Array;
  readonly #owner: number;

  /** `owner`: this thread's number, from 1. */
  constructor(memory: SharedArrayBuffer, owner: number) {
    this.#words = new Int32Array(memory, 0, WORDS);
    this.#failure = new Uint8Array(memory, WORDS * 4, FAILURE_SIZE);
    this.#owner = owner;
  }

  /** From now on no request is served any more. */
  stop(): void {
    Atomics.store(this.#words, STOPPED, 1);
  }

  get stopped(): boolean {
    return Atomics.load(this.#words, STOPPED) !== 0;
  }

  /** To be called behind each change: whoever flushes then takes it along, or comes again. */
  markChanged(): void {
    if (Atomics.load(this.#words, CHANGED) === 0) Atomics.store(this.#words, CHANGED, 1);
  }

  /** Whether something was changed since this was asked the last time. */
  takeChanged(): boolean {
    return Atomics.exchange(this.#words, CHANGED, 0) !== 0;
  }

  /**
   * Held by who changes the disk's size to what it reckons from the one that it sees. Comes before
   * every lock of the image.
   */
  lockSize(): void {
    lock(this.#words, SIZE_LOCK, this.#owner);
  }

  unlockSize(): void {
    unlock(this.#words, SIZE_LOCK);
  }

  /** Why the last control failed, in words: an errno says little. */
  get failure(): string {
    const length = Atomics.load(this.#words, FAILURE_LENGTH);
    return Buffer.from(this.#failure.slice(0, length)).toString();
  }
  set failure(text: string) {
    const { written } = new TextEncoder().encodeInto(text, new Uint8Array(FAILURE_SIZE));
    this.#failure.set(Buffer.from(text).subarray(0, written));
    Atomics.store(this.#words, FAILURE_LENGTH, written);
  }

  /** Lets the main thread pause where it cannot wait for events. */
  pause(milliseconds: number): void {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
  }

  /** Frees the lock of a thread that died. */
  recover(owner: number): void {
    if (isHeldBy(this.#words, SIZE_LOCK, owner)) unlock(this.#words, SIZE_LOCK);
  }
}
