/** Numbers that are the same in every run: the order of scattered writes, the files of a tree. */

/** A generator of 32-bit numbers (mulberry32). */
export function seededNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

/** The numbers from 0 to `count` - 1 in a random order. */
export function shuffled(count: number, next: () => number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, index) => index);
  for (let last = count - 1; last > 0; last--) {
    const other = next() % (last + 1);
    [order[last], order[other]] = [order[other]!, order[last]!];
  }
  return order;
}
