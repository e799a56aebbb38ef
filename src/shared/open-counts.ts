/**
 * How many files of each view (the disk, a snapshot) are open in a mount, for all of its threads. Who
 * takes a view away, or changes what it shows, claims it before: that works only while none is open,
 * and opening waits until the claim is over.
 */

/** Views that are as far apart as this share a counter: one that is open keeps the other. */
const COUNTERS = 1 << 17;

export function allocateOpenCounts(): SharedArrayBuffer {
  return new SharedArrayBuffer(COUNTERS * 4);
}

export class OpenCounts {
  /** Above zero: that many are open. Below: the owner of a claim, negated. */
  readonly #counters: Int32Array;
  readonly #owner: number;

  /** `owner`: this thread's number, from 1. */
  constructor(memory: SharedArrayBuffer, owner: number) {
    this.#counters = new Int32Array(memory);
    this.#owner = owner;
  }

  /** Counts one more. Waits while the view is claimed: it may be gone, or another, after that. */
  open(view: number): void {
    const counters = this.#counters;
    const at = view % COUNTERS;
    for (;;) {
      const seen = Atomics.load(counters, at);
      if (seen < 0) Atomics.wait(counters, at, seen);
      else if (Atomics.compareExchange(counters, at, seen, seen + 1) === seen) return;
    }
  }

  close(view: number): void {
    const counters = this.#counters;
    const at = view % COUNTERS;
    for (;;) {
      const seen = Atomics.load(counters, at);
      if (seen <= 0) return;
      if (Atomics.compareExchange(counters, at, seen, seen - 1) !== seen) continue;
      if (seen === 1) Atomics.notify(counters, at);
      return;
    }
  }

  /**
   * Claims the view. False where it is still open after that many milliseconds: the kernel tells of
   * the end of a file only a moment after the program has closed it.
   */
  claim(view: number, patienceMs: number): boolean {
    const counters = this.#counters;
    const at = view % COUNTERS;
    const end = performance.now() + patienceMs;
    for (;;) {
      const seen = Atomics.compareExchange(counters, at, 0, -this.#owner);
      if (seen === 0) return true;
      const left = end - performance.now();
      if (left <= 0) return false;
      Atomics.wait(counters, at, seen, left);
    }
  }

  /** Ends a claim. */
  release(view: number): void {
    this.#free(view % COUNTERS);
  }

  /** Ends what a thread that died had claimed. */
  recover(owner: number): void {
    for (let at = 0; at < COUNTERS; at++) {
      if (Atomics.load(this.#counters, at) === -owner) this.#free(at);
    }
  }

  #free(at: number): void {
    Atomics.store(this.#counters, at, 0);
    Atomics.notify(this.#counters, at);
  }
}
