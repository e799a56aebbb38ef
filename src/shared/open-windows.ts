/**
 * The partitions of a disk that are open, in shared memory: a file that is open keeps the place that
 * its partition had then, whatever becomes of the partition table. Files of the same place share a
 * slot.
 */
import { isHeldBy, lock, unlock } from './futex.js';

const SLOTS = 1024;

// Words: the lock, then two for each slot.
const LOCK = 0;
const FIRST_SLOT = 2;
const SLOT_WORDS = 2;
const COUNT = 0;
const NUMBER = 1;

// Numbers of each slot, in bytes of the disk.
const SLOT_NUMBERS = 2;
const START = 0;
const SIZE = 1;

export interface OpenWindowsMemory {
  readonly words: SharedArrayBuffer;
  readonly numbers: SharedArrayBuffer;
}

export function allocateOpenWindows(): OpenWindowsMemory {
  return {
    words: new SharedArrayBuffer((FIRST_SLOT + SLOTS * SLOT_WORDS) * 4),
    numbers: new SharedArrayBuffer(SLOTS * SLOT_NUMBERS * 8),
  };
}

export class OpenWindows {
  readonly #words: Int32Array;
  readonly #numbers: Float64Array;
  readonly #owner: number;

  /** `owner`: this thread's number, from 1. */
  constructor(memory: OpenWindowsMemory, owner: number) {
    this.#words = new Int32Array(memory.words);
    this.#numbers = new Float64Array(memory.numbers);
    this.#owner = owner;
  }

  /** Answers a slot for partition `number`, as it lies now; -1 where all are taken. */
  open(number: number, start: number, size: number): number {
    lock(this.#words, LOCK, this.#owner);
    try {
      let free = -1;
      for (let slot = 0; slot < SLOTS; slot++) {
        if (this.#count(slot) === 0) {
          if (free < 0) free = slot;
        } else if (this.#is(slot, number) && this.start(slot) === start) {
          if (this.size(slot) !== size) continue;
          this.#add(slot, 1);
          return slot;
        }
      }
      if (free < 0) return free;
      this.#numbers[free * SLOT_NUMBERS + START] = start;
      this.#numbers[free * SLOT_NUMBERS + SIZE] = size;
      this.#words[FIRST_SLOT + free * SLOT_WORDS + NUMBER] = number;
      this.#add(free, 1);
      return free;
    } finally {
      unlock(this.#words, LOCK);
    }
  }

  close(slot: number): void {
    lock(this.#words, LOCK, this.#owner);
    if (this.#count(slot) > 0) this.#add(slot, -1);
    unlock(this.#words, LOCK);
  }

  /** The first byte on the disk. Does not change while the slot is open. */
  start(slot: number): number {
    return this.#numbers[slot * SLOT_NUMBERS + START]!;
  }

  /** Bytes. */
  size(slot: number): number {
    return this.#numbers[slot * SLOT_NUMBERS + SIZE]!;
  }

  /** A slot that is open for partition `number`; -1 where there is none. */
  find(number: number): number {
    for (let slot = 0; slot < SLOTS; slot++) {
      if (this.#count(slot) > 0 && this.#is(slot, number)) return slot;
    }
    return -1;
  }

  /** Frees the lock of a thread that died. */
  recover(owner: number): void {
    if (isHeldBy(this.#words, LOCK, owner)) unlock(this.#words, LOCK);
  }

  #count(slot: number): number {
    return Atomics.load(this.#words, FIRST_SLOT + slot * SLOT_WORDS + COUNT);
  }

  #add(slot: number, change: number): void {
    Atomics.add(this.#words, FIRST_SLOT + slot * SLOT_WORDS + COUNT, change);
  }

  #is(slot: number, number: number): boolean {
    return this.#words[FIRST_SLOT + slot * SLOT_WORDS + NUMBER] === number;
  }
}
