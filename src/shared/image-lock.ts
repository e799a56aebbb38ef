/**
 * The lock of one image, in shared memory. Three ways to hold it:
 *
 *   shared     reading, and writing to clusters in place. Many at once.
 *   reserved   changing metadata: one at a time, while the shared ones go on.
 *   alone      a reservation whose holder has also waited until no shared one is left: needed
 *              before a cluster that somebody may still be reading is used for something else.
 *
 * Each owner has a word of its own for the shared way, so that readers do not fight for a cache line
 * and one that dies can be told from the others. Who waits to be alone keeps new shared ones out, so
 * that it cannot starve.
 *
 * Order of locks: the image's reservation, then being alone, then one set of the slice cache. Nobody
 * who holds the lock in the shared way asks for a reservation.
 */
import { ERRNO, SysError } from '../errors.js';
import { isHeldBy, lock, unlock } from './futex.js';

const CACHE_LINE_WORDS = 16;
/** Who holds the reservation. */
const RESERVED = 0;
/** 1 while somebody is alone, or waits to be. */
const CLOSED = CACHE_LINE_WORDS;
const FIRST_OWNER = 2 * CACHE_LINE_WORDS;

/** Memory for the lock; owners have numbers from 1 to `owners`. */
export function allocateImageLock(owners: number): SharedArrayBuffer {
  return new SharedArrayBuffer((FIRST_OWNER + owners * CACHE_LINE_WORDS) * 4);
}

export class ImageLock {
  readonly #words: Int32Array;
  readonly #owner: number;
  readonly #own: number;
  readonly #patienceMs: number;
  #alone = 0;

  /**
   * `patienceMs`: how long to wait for others, before the call fails with EAGAIN. The main thread must
   * have an end to it: only while it does not wait does it hear of a thread that died with a lock.
   */
  constructor(memory: SharedArrayBuffer, owner: number, patienceMs = Number.POSITIVE_INFINITY) {
    this.#patienceMs = patienceMs;
    this.#words = new Int32Array(memory);
    this.#owner = owner;
    this.#own = FIRST_OWNER + (owner - 1) * CACHE_LINE_WORDS;
  }

  enterShared(): void {
    const words = this.#words;
    for (;;) {
      Atomics.store(words, this.#own, 1);
      if (Atomics.load(words, CLOSED) === 0) return;
      this.leaveShared();
      Atomics.wait(words, CLOSED, 1);
    }
  }

  leaveShared(): void {
    Atomics.store(this.#words, this.#own, 0);
    if (Atomics.load(this.#words, CLOSED) !== 0) Atomics.notify(this.#words, this.#own);
  }

  reserve(): void {
    if (!lock(this.#words, RESERVED, this.#owner, this.#patienceMs)) this.#giveUp();
  }

  release(): void {
    unlock(this.#words, RESERVED);
  }

  /** With a reservation: keeps the shared ones out, and waits until none is left. Nests. */
  beAlone(): void {
    const words = this.#words;
    if (this.#alone++ > 0) return;
    Atomics.store(words, CLOSED, 1);
    const end = performance.now() + this.#patienceMs;
    for (let at = FIRST_OWNER; at < words.length; at += CACHE_LINE_WORDS) {
      while (Atomics.load(words, at) !== 0) {
        const left = end - performance.now();
        if (!(left > 0)) {
          this.letIn();
          this.#giveUp();
        }
        Atomics.wait(words, at, 1, left);
      }
    }
  }

  #giveUp(): never {
    throw new SysError('lock', ERRNO.EAGAIN, 'of the image: another thread has it');
  }

  /** Lets the shared ones in again; the reservation stays. */
  letIn(): void {
    if (--this.#alone === 0) this.#open();
  }

  #open(): void {
    Atomics.store(this.#words, CLOSED, 0);
    Atomics.notify(this.#words, CLOSED);
  }

  /**
   * Frees what the dead thread `owner` held. Where it was changing metadata, `onReserved` is called
   * before anybody else can; true then.
   */
  recover(owner: number, onReserved: () => void = () => {}): boolean {
    const at = FIRST_OWNER + (owner - 1) * CACHE_LINE_WORDS;
    Atomics.store(this.#words, at, 0);
    Atomics.notify(this.#words, at);
    if (!isHeldBy(this.#words, RESERVED, owner)) return false;
    onReserved();
    this.#open();
    this.release();
    return true;
  }
}
