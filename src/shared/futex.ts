/**
 * Locks in shared memory: one 32-bit word each, 0 where free, otherwise the owner's number, with
 * the top bit set once somebody waits. The owner's number lets the main thread free what a worker
 * held that died.
 */

const WAITERS = 0x4000_0000;

/**
 * Takes `words[index]` for `owner` (1 to 2^30 - 1); sleeps until it is free. False where it is not
 * after `patienceMs` milliseconds.
 */
export function lock(
  words: Int32Array,
  index: number,
  owner: number,
  patienceMs = Number.POSITIVE_INFINITY,
): boolean {
  let seen = Atomics.compareExchange(words, index, 0, owner);
  if (seen === 0) return true;
  const end = performance.now() + patienceMs;
  while (seen !== 0) {
    const marked = seen | WAITERS;
    if (seen === marked || Atomics.compareExchange(words, index, seen, marked) === seen) {
      const left = end - performance.now();
      if (!(left > 0)) return false;
      Atomics.wait(words, index, marked, left);
    }
    // Others may wait as well: whoever comes out of a wait keeps the mark for them.
    seen = Atomics.compareExchange(words, index, 0, owner | WAITERS);
  }
  return true;
}

export function unlock(words: Int32Array, index: number): void {
  const held = Atomics.exchange(words, index, 0);
  if ((held & WAITERS) !== 0) Atomics.notify(words, index, 1);
}

/** Whether `owner` holds `words[index]`. */
export function isHeldBy(words: Int32Array, index: number, owner: number): boolean {
  return (Atomics.load(words, index) & ~WAITERS) === owner;
}
