/**
 * The sizes of files that are made when somebody opens them, as far as they are known: any thread tells what
 * another one has found. The last ones are kept, by numbers above 0.
 */

const SLOTS = 1024;
const SLOT_WORDS = 2;

export function allocateToldSizes(): SharedArrayBuffer {
  return new SharedArrayBuffer(SLOTS * SLOT_WORDS * 4);
}

export class ToldSizes {
  readonly #words: Uint32Array;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Uint32Array(memory);
  }

  put(number: number, size: number): void {
    const at = wordsOf(number);
    Atomics.store(this.#words, at, 0);
    Atomics.store(this.#words, at + 1, size);
    Atomics.store(this.#words, at, number);
  }

  /** Undefined where it is not known (any more). */
  get(number: number): number | undefined {
    const at = wordsOf(number);
    if (Atomics.load(this.#words, at) !== number) return undefined;
    const size = Atomics.load(this.#words, at + 1);
    // Another one may have come to its place meanwhile.
    return Atomics.load(this.#words, at) === number ? size : undefined;
  }
}

function wordsOf(number: number): number {
  return (number % SLOTS) * SLOT_WORDS;
}
