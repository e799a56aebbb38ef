/**
 * Which parts of a disk were changed since the image was opened, in memory that all threads share: a bit
 * for each unit of the disk. One map serves all bitmaps of an image, whatever their granularities are:
 * its unit is the finest of them, but coarser where that takes more than 128 MiB (of which only pages
 * count that were written to).
 *
 * Marking takes no lock. Everything else is for who is alone with the image.
 */
import { forEachRun } from '../codec/bit-runs.js';

const MOST_BYTES = 128 << 20;
/** So much of a disk that grows has bits of its own; what lies behind is dirty or clean as a whole. */
const ROOM_TO_GROW = 4;

const UNIT = 0;
/** Behind that byte of the disk, what was known before the image was opened is no longer true. */
const KEPT_END = 1;
const NUMBERS = 2;

// Flags, as 32-bit integers.
const BEYOND = 0;
const HELD = 1;
const VERSION = 2;
const FLAGS = 3;

export interface ChangeMapMemory {
  readonly numbers: SharedArrayBuffer;
  readonly flags: SharedArrayBuffer;
  readonly bits: SharedArrayBuffer;
}

/** What is marked as in use in the file, so that it may change: nothing, what is recorded in, all. */
export type Held = 'none' | 'recording' | 'all';
const HELD_VALUES: readonly Held[] = ['none', 'recording', 'all'];

/** `unit`: bytes, a power of two; `size`: the disk's. */
export function allocateChangeMap(size: number, unit: number): ChangeMapMemory {
  let chosen = unit;
  while (size / chosen / 8 > MOST_BYTES) chosen *= 2;
  const needed = Math.ceil(size / chosen / 8);
  const bytes = Math.min(MOST_BYTES, Math.max(4096, needed * ROOM_TO_GROW));
  const memory = {
    numbers: new SharedArrayBuffer(NUMBERS * 8),
    flags: new SharedArrayBuffer(FLAGS * 4),
    bits: new SharedArrayBuffer(Math.ceil(bytes / 4) * 4),
  };
  const numbers = new Float64Array(memory.numbers);
  numbers[UNIT] = chosen;
  numbers[KEPT_END] = Number.POSITIVE_INFINITY;
  return memory;
}

export class ChangeMap {
  readonly #numbers: Float64Array;
  readonly #flags: Int32Array;
  readonly #words: Int32Array;
  /** The same bits: the hosts are little-endian. */
  readonly #bytes: Uint8Array;

  constructor({ numbers, flags, bits }: ChangeMapMemory) {
    this.#numbers = new Float64Array(numbers);
    this.#flags = new Int32Array(flags);
    this.#words = new Int32Array(bits);
    this.#bytes = new Uint8Array(bits);
  }

  /** Marks a range as changed, before it is. By any thread. */
  mark(offset: number, length: number): void {
    if (length <= 0) return;
    const unit = this.#unit;
    const first = Math.floor(offset / unit);
    let last = Math.floor((offset + length - 1) / unit);
    const most = this.#words.length * 32 - 1;
    if (last > most) {
      Atomics.store(this.#flags, BEYOND, 1);
      last = most;
    }
    const lastWord = Math.floor(last / 32);
    for (let word = Math.floor(first / 32); word <= lastWord; word++) {
      const from = Math.max(0, first - word * 32);
      const to = Math.min(31, last - word * 32);
      const mask = (-1 << from) & (-1 >>> (31 - to));
      // Most writes mark what is marked: that costs no exchange between cores.
      if ((Atomics.load(this.#words, word) & mask) === mask) continue;
      Atomics.or(this.#words, word, mask);
      Atomics.add(this.#flags, VERSION, 1);
    }
  }

  /** Calls `visit` for what was changed in a range of the disk: [start, end), bytes. */
  forEachDirty(from: number, to: number, visit: (start: number, end: number) => void): void {
    const unit = this.#unit;
    const bits = this.#bytes.length * 8;
    const first = Math.floor(from / unit);
    const end = Math.min(bits, Math.ceil(to / unit));
    if (first < end) {
      forEachRun(this.#bytes, first, end, (start, stop) => visit(start * unit, stop * unit));
    }
    const beyond = Math.max(from, bits * unit);
    if (beyond < to && Atomics.load(this.#flags, BEYOND) !== 0) visit(beyond, to);
  }

  /** The disk gets another size: what is new behind its end, or comes again, is not changed. */
  resize(from: number, to: number): void {
    const end = Math.min(from, to);
    this.#numbers[KEPT_END] = Math.min(this.keptEnd, end);
    Atomics.add(this.#flags, VERSION, 1);
    const unit = this.#unit;
    const first = Math.ceil(end / unit);
    const firstByte = Math.ceil(first / 8);
    for (let bit = first; bit < Math.min(firstByte * 8, this.#bytes.length * 8); bit++) {
      this.#bytes[bit >>> 3]! &= ~(1 << (bit & 7));
    }
    // Pages that were never written to stay so.
    for (let at = firstByte; at < this.#bytes.length; at++) {
      if (this.#bytes[at] !== 0) this.#bytes[at] = 0;
    }
    if (first >= this.#bytes.length * 8) return;
    Atomics.store(this.#flags, BEYOND, 0);
  }

  /** Forgets all changes. */
  clear(): void {
    this.resize(0, 0);
    this.#numbers[KEPT_END] = Number.POSITIVE_INFINITY;
  }

  /** Another number whenever something else is marked than before. */
  get version(): number {
    return Atomics.load(this.#flags, VERSION);
  }

  get keptEnd(): number {
    return this.#numbers[KEPT_END]!;
  }

  get held(): Held {
    return HELD_VALUES[Atomics.load(this.#flags, HELD)]!;
  }
  set held(value: Held) {
    Atomics.store(this.#flags, HELD, HELD_VALUES.indexOf(value));
  }

  get #unit(): number {
    return this.#numbers[UNIT]!;
  }
}
