/**
 * The metadata cache that all workers share: slices of up to 4 KiB of L1 and L2 tables, kept in the
 * host's byte order, 8 ways to a set. Lookups take no lock: each slot has a sequence number, odd
 * while it is being filled, and a reader whose number changed under it looks again. Fills take the
 * set's lock, so that two workers never fill the same slice twice.
 */
import { TWO_32 } from '../codec/bits.js';
import { isHeldBy, lock, unlock } from './futex.js';

/** Bytes of a slice at most; tables of smaller clusters use the front of their slot. */
export const SLICE_SIZE = 4096;
export const MIN_CACHE_SIZE = 64 * SLICE_SIZE;

const SLICE_WORDS = SLICE_SIZE / 4;
const WAYS = 8;

// The words of a slot: its key (0, 0: empty), its sequence number, whether it was used of late.
const SLOT_WORDS = 4;
const KEY_LOW = 0;
const KEY_HIGH = 1;
const SEQUENCE = 2;
const USED = 3;

/** What the workers share; made once, handed to each thread. */
export interface SliceCacheMemory {
  readonly slots: SharedArrayBuffer;
  readonly locks: SharedArrayBuffer;
  readonly slices: SharedArrayBuffer;
}

/** Fills `target` (SLICE_SIZE bytes, zeroes where the file ends) or throws. */
export type LoadSlice = (file: number, offset: number, target: Uint8Array) => void;

/** Memory for `bytes` of slices, rounded down to a power of two of sets. */
export function allocateSliceCache(bytes: number): SliceCacheMemory {
  const wanted = Math.max(bytes, MIN_CACHE_SIZE) / (SLICE_SIZE * WAYS);
  const sets = 2 ** Math.floor(Math.log2(wanted));
  return {
    slots: new SharedArrayBuffer(sets * WAYS * SLOT_WORDS * 4),
    locks: new SharedArrayBuffer(sets * 4),
    slices: new SharedArrayBuffer(sets * WAYS * SLICE_SIZE),
  };
}

/**
 * A sequence number, read no earlier than what was read before it. On x86 loads keep their order; on
 * others only an operation that also writes holds back the loads in front of it.
 */
const sequenceAfterReads: (slots: Int32Array, at: number) => number =
  process.arch === 'x64'
    ? (slots, at) => Atomics.load(slots, at)
    : (slots, at) => Atomics.add(slots, at, 0);

export class SliceCache {
  /** The slices' 64-bit entries, as pairs of 32-bit words: low half first. */
  readonly words: Uint32Array;
  /** The sequence number of the slot that `find` answered last. */
  sequence = 0;

  readonly #slots: Int32Array;
  readonly #locks: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #setMask: number;
  readonly #owner: number;
  readonly #load: LoadSlice;

  /** `owner`: this thread's number, from 1. */
  constructor(memory: SliceCacheMemory, owner: number, load: LoadSlice) {
    this.words = new Uint32Array(memory.slices);
    this.#slots = new Int32Array(memory.slots);
    this.#locks = new Int32Array(memory.locks);
    this.#bytes = new Uint8Array(memory.slices);
    this.#setMask = this.#locks.length - 1;
    this.#owner = owner;
    this.#load = load;
  }

  /**
   * Finds the slice at byte `offset` (a multiple of 512) of file number `file`, loading it where it
   * is absent. Answers the index in `words` of its first word. What is then read there counts only if
   * `unchanged(index)` says so afterwards.
   */
  find(file: number, offset: number): number {
    const unit = offset / 512;
    const low = unit | 0;
    const high = ((file + 1) << 12) | (unit / TWO_32);
    const set = (Math.imul(low ^ Math.imul(high, 0x85ebca6b), 0x9e3779b1) >>> 8) & this.#setMask;
    const slot = this.#lookUp(set, low, high);
    return (slot >= 0 ? slot : this.#fill(set, low, high, file, offset)) * SLICE_WORDS;
  }

  /** Whether the slice at `index` is still the one that the last `find` answered. */
  unchanged(index: number, sequence: number): boolean {
    const slot = index / SLICE_WORDS;
    return sequenceAfterReads(this.#slots, slot * SLOT_WORDS + SEQUENCE) === sequence;
  }

  /** Frees what the dead thread `owner` held; slices that it was filling are forgotten. */
  recover(owner: number): void {
    for (let set = 0; set <= this.#setMask; set++) {
      if (!isHeldBy(this.#locks, set, owner)) continue;
      for (let slot = set * WAYS; slot < (set + 1) * WAYS; slot++) {
        const sequence = Atomics.load(this.#slots, slot * SLOT_WORDS + SEQUENCE);
        if ((sequence & 1) === 1) this.#finish(slot, 0, 0);
      }
      unlock(this.#locks, set);
    }
  }

  #lookUp(set: number, low: number, high: number): number {
    const slots = this.#slots;
    for (let slot = set * WAYS; slot < (set + 1) * WAYS; slot++) {
      const at = slot * SLOT_WORDS;
      if (slots[at + KEY_LOW] !== low || slots[at + KEY_HIGH] !== high) continue;
      const sequence = Atomics.load(slots, at + SEQUENCE);
      // The key again, now that the number is known: it may have changed before.
      if ((sequence & 1) === 1 || Atomics.load(slots, at + KEY_LOW) !== low) continue;
      if (Atomics.load(slots, at + KEY_HIGH) !== high) continue;
      if (slots[at + USED] === 0) slots[at + USED] = 1;
      this.sequence = sequence;
      return slot;
    }
    return -1;
  }

  #fill(set: number, low: number, high: number, file: number, offset: number): number {
    lock(this.#locks, set, this.#owner);
    try {
      const found = this.#lookUp(set, low, high);
      if (found >= 0) return found;
      const slot = this.#victim(set);
      Atomics.add(this.#slots, slot * SLOT_WORDS + SEQUENCE, 1);
      const slice = this.#bytes.subarray(slot * SLICE_SIZE, (slot + 1) * SLICE_SIZE);
      let loaded = false;
      try {
        this.#load(file, offset, slice);
        loaded = true;
      } finally {
        this.#finish(slot, loaded ? low : 0, loaded ? high : 0);
      }
      this.sequence = Atomics.load(this.#slots, slot * SLOT_WORDS + SEQUENCE);
      return slot;
    } finally {
      unlock(this.#locks, set);
    }
  }

  /** Ends a fill: the slot holds the slice of that key, or nothing. */
  #finish(slot: number, low: number, high: number): void {
    const at = slot * SLOT_WORDS;
    Atomics.store(this.#slots, at + KEY_LOW, low);
    Atomics.store(this.#slots, at + KEY_HIGH, high);
    Atomics.store(this.#slots, at + USED, 1);
    Atomics.add(this.#slots, at + SEQUENCE, 1);
  }

  /** An empty slot of the set, or one not used since the last time a slot was looked for. */
  #victim(set: number): number {
    const slots = this.#slots;
    const first = set * WAYS;
    for (let slot = first; slot < first + WAYS; slot++) {
      if (slots[slot * SLOT_WORDS + KEY_HIGH] === 0) return slot;
    }
    for (let slot = first; slot < first + WAYS; slot++) {
      if (slots[slot * SLOT_WORDS + USED] === 0) return slot;
    }
    for (let slot = first; slot < first + WAYS; slot++) slots[slot * SLOT_WORDS + USED] = 0;
    // Any will do; the sequence of the first spreads the choice over the ways.
    return first + ((Atomics.load(slots, first * SLOT_WORDS + SEQUENCE) >>> 1) % WAYS);
  }
}
