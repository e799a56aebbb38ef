/** Random choices that can be made again: everything follows from one seed, which is printed. */

/** From the environment variable QCOW2FS_SEED, or new each time. */
export const SEED = Number(process.env.QCOW2FS_SEED ?? Date.now() % 0x7fff_ffff) | 0;

/** To be called in the body of a `describe`. */
export function printSeed(): void {
  before(() => console.log(`      QCOW2FS_SEED=${SEED}`));
}

/** Numbers that follow from a seed (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** At least 0, below `limit`, an integer. */
  below(limit: number): number {
    return Math.floor(this.#next() * limit);
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }

  chance(probability: number): boolean {
    return this.#next() < probability;
  }

  /** `length` random bytes: they do not compress. */
  bytes(length: number): Buffer {
    const bytes = Buffer.alloc(length);
    for (let at = 0; at < length; at++) bytes[at] = this.#next() * 256;
    return bytes;
  }

  #next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000;
  }
}

/** Bytes that follow from a seed and compress well: no two seeds' first 512 bytes are the same. */
export function pattern(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at++) bytes[at] = seed + (at >> 9) * 7 + (at & 15);
  if (length >= 4) bytes.writeUInt32BE(seed >>> 0, 0);
  return bytes;
}
