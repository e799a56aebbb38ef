/**
 * Texts that are made when a file is opened, and read in pieces by any thread: what a reader gets has to be one
 * text from its start to its end. A few of the last ones are kept, by numbers that no other has.
 */

const SLOTS = 4;
/** Bytes of a text that is kept; only memory that was written to takes any. */
const SLOT_SIZE = 8 << 20;

// Words: the last number that was given; then for each slot whose text it has, and how long that is.
const LAST = 0;
const FIRST_SLOT = 1;
const SLOT_WORDS = 2;
const WORDS = FIRST_SLOT + SLOTS * SLOT_WORDS;

export interface MadeTextsMemory {
  readonly words: SharedArrayBuffer;
  readonly bytes: SharedArrayBuffer;
}

export function allocateMadeTexts(): MadeTextsMemory {
  return {
    words: new SharedArrayBuffer(WORDS * 4),
    bytes: new SharedArrayBuffer(SLOTS * SLOT_SIZE),
  };
}

export class MadeTexts {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;

  constructor(memory: MadeTextsMemory) {
    this.#words = new Int32Array(memory.words);
    this.#bytes = new Uint8Array(memory.bytes);
  }

  /** A number for who opens a file, from 1 on. */
  open(): number {
    return (Atomics.add(this.#words, LAST, 1) >>> 0) + 1;
  }

  /** Keeps a text under the number; one that is too long is not kept. */
  put(number: number, text: Uint8Array): void {
    if (text.length > SLOT_SIZE) return;
    const at = wordsOf(number);
    Atomics.store(this.#words, at, 0);
    this.#bytes.set(text, slotOf(number) * SLOT_SIZE);
    Atomics.store(this.#words, at + 1, text.length);
    Atomics.store(this.#words, at, number | 0);
  }

  /** A copy of the text of that number; undefined where it is not kept (any more). */
  get(number: number): Uint8Array | undefined {
    const at = wordsOf(number);
    if (Atomics.load(this.#words, at) !== (number | 0)) return undefined;
    const start = slotOf(number) * SLOT_SIZE;
    const text = this.#bytes.slice(start, start + Atomics.load(this.#words, at + 1));
    // Another one may have come to its place meanwhile.
    return Atomics.load(this.#words, at) === (number | 0) ? text : undefined;
  }
}

function slotOf(number: number): number {
  return number % SLOTS;
}

function wordsOf(number: number): number {
  return FIRST_SLOT + slotOf(number) * SLOT_WORDS;
}
