/**
 * The metadata cache that all workers share: slices of up to 4 KiB of L1, L2 and refcount tables, kept
 * in the host's byte order, 8 ways to a set. Lookups take no lock: each slot has a sequence number,
 * odd while it is being changed, and a reader whose number changed under it looks again. Fills and
 * edits take the set's lock, so that two workers never fill the same slice twice.
 *
 * An edited slice is dirty, with a rank that says when it is written back (`RANK`): it stays until
 * that is done. Only who holds the image's reservation edits and writes back.
 */
import { TWO_32 } from '../codec/bits.js';
import { isHeldBy, lock, unlock } from './futex.js';
import { allocateImageCounters, ImageCounters } from './image-counters.js';

/** Bytes of a slice at most; tables of smaller clusters use the front of their slot. */
export const SLICE_SIZE = 4096;
export const MIN_CACHE_SIZE = 64 * SLICE_SIZE;

const SLICE_WORDS = SLICE_SIZE / 4;
const WAYS = 8;
/** Offsets are multiples of it. */
const UNIT = 512;

// The words of a slot: its key (0, 0: empty), its sequence number, whether it was used of late.
const SLOT_WORDS = 4;
const KEY_LOW = 0;
const KEY_HIGH = 1;
const SEQUENCE = 2;
const USED = 3;

/** Dirty slots of a set at most, so that others can be filled: beyond, dirty ones are written first. */
const MOST_DIRTY = WAYS - 2;

/** What a dirty slice belongs to, in the order of writing back; 0 is a clean one. */
export const RANK = { REFCOUNT_BLOCK: 1, REFCOUNT_TABLE: 2, L2: 3, L1: 4 } as const;
export type Rank = (typeof RANK)[keyof typeof RANK];
const RANKS = 5;

/** What `edit` answers where the slice's set has no room for another dirty one. */
export const NO_ROOM = -1;

/** What the workers share; made once, handed to each thread. */
export interface SliceCacheMemory {
  readonly slots: SharedArrayBuffer;
  readonly locks: SharedArrayBuffer;
  readonly slices: SharedArrayBuffer;
  /** The rank of each slot, and how many there are of each rank. */
  readonly ranks: SharedArrayBuffer;
  readonly dirtyCounts: SharedArrayBuffer;
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
    ranks: new SharedArrayBuffer(sets * WAYS),
    dirtyCounts: new SharedArrayBuffer(RANKS * 4),
  };
}

/** Makes it as good as a new one; no thread uses it. */
export function emptySliceCache({ slots, locks, ranks, dirtyCounts }: SliceCacheMemory): void {
  for (const memory of [slots, locks, ranks, dirtyCounts]) new Uint8Array(memory).fill(0);
}

/**
 * A sequence number, read no earlier than what was read before it. On x86 loads keep their order; on
 * others only an operation that also writes holds back the loads in front of it.
 */
const sequenceAfterReads: (slots: Int32Array, at: number) => number =
  process.arch === 'x64'
    ? (slots, at) => Atomics.load(slots, at)
    : (slots, at) => Atomics.add(slots, at, 0);

/** The halves of a slice's key: its file from 1 on, and its offset in units of 512 bytes. */
function keyLow(offset: number): number {
  return (offset / UNIT) | 0;
}

function keyHigh(file: number, offset: number): number {
  return ((file + 1) << 12) | (offset / UNIT / TWO_32);
}

function offsetOf(low: number, high: number): number {
  return ((high & 0xfff) * TWO_32 + (low >>> 0)) * UNIT;
}

export class SliceCache {
  /** The slices' 64-bit entries, as pairs of 32-bit words: low half first. */
  readonly words: Uint32Array;
  /** The same memory in smaller units: each group of 8 bytes of the file lies turned round. */
  readonly halves: Uint16Array;
  readonly bytes: Uint8Array;
  /** The sequence number of the slot that `find` answered last. */
  sequence = 0;

  readonly #slots: Int32Array;
  readonly #locks: Int32Array;
  readonly #ranks: Uint8Array;
  readonly #dirtyCounts: Int32Array;
  readonly #setMask: number;
  readonly #owner: number;
  readonly #load: LoadSlice;
  readonly #counters: ImageCounters;

  /** `owner`: this thread's number, from 1. `counters`: this thread's, where somebody looks at them. */
  constructor(
    memory: SliceCacheMemory,
    owner: number,
    load: LoadSlice,
    counters: ImageCounters = new ImageCounters(allocateImageCounters(1), 1),
  ) {
    this.words = new Uint32Array(memory.slices);
    this.halves = new Uint16Array(memory.slices);
    this.#slots = new Int32Array(memory.slots);
    this.#locks = new Int32Array(memory.locks);
    this.bytes = new Uint8Array(memory.slices);
    this.#ranks = new Uint8Array(memory.ranks);
    this.#dirtyCounts = new Int32Array(memory.dirtyCounts);
    this.#setMask = this.#locks.length - 1;
    this.#owner = owner;
    this.#load = load;
    this.#counters = counters;
  }

  /**
   * Finds the slice at byte `offset` (a multiple of 512) of file number `file`, loading it where it
   * is absent. Answers the index in `words` of its first word. What is then read there counts only if
   * `unchanged(index)` says so afterwards.
   */
  find(file: number, offset: number): number {
    const low = keyLow(offset);
    const high = keyHigh(file, offset);
    const set = this.#setOf(low, high);
    const slot = this.#lookUp(set, low, high);
    if (slot < 0) return this.#fill(set, low, high, file, offset) * SLICE_WORDS;
    this.#counters.hit();
    return slot * SLICE_WORDS;
  }

  /** Whether the slice at `index` is still the one that the last `find` answered. */
  unchanged(index: number, sequence: number): boolean {
    const slot = index / SLICE_WORDS;
    return sequenceAfterReads(this.#slots, slot * SLOT_WORDS + SEQUENCE) === sequence;
  }

  /**
   * Opens the slice at `offset` for changes in `words`, and makes it dirty. Answers the index of its
   * first word, or NO_ROOM. Until `endEdit` its set is locked and readers wait: no other call between.
   */
  edit(file: number, offset: number, rank: Rank): number {
    const low = keyLow(offset);
    const high = keyHigh(file, offset);
    const set = this.#setOf(low, high);
    lock(this.#locks, set, this.#owner);
    let slot = NO_ROOM;
    try {
      slot = this.#lookUp(set, low, high);
      if ((slot < 0 || this.#ranks[slot] === 0) && this.#dirtyOf(set) >= MOST_DIRTY) slot = NO_ROOM;
      else if (slot < 0) slot = this.#fillVictim(set, low, high, file, offset);
    } finally {
      if (slot < 0) unlock(this.#locks, set);
    }
    if (slot < 0) return NO_ROOM;
    this.#setRank(slot, rank);
    Atomics.add(this.#slots, slot * SLOT_WORDS + SEQUENCE, 1);
    return slot * SLICE_WORDS;
  }

  /** Ends the changes that `edit` began. */
  endEdit(index: number): void {
    const slot = index / SLICE_WORDS;
    Atomics.add(this.#slots, slot * SLOT_WORDS + SEQUENCE, 1);
    unlock(this.#locks, Math.floor(slot / WAYS));
  }

  dirtyCount(rank: Rank): number {
    return this.#dirtyCounts[rank]!;
  }

  /**
   * Hands all dirty slices of that rank to `write`, by their place in the file, and makes each clean
   * once it returns. `bytes`: the whole slot, in the host's byte order. Throws what `write` throws.
   */
  writeBack(rank: Rank, write: (file: number, offset: number, bytes: Uint8Array) => void): void {
    if (this.#dirtyCounts[rank] === 0) return;
    const found: { slot: number; file: number; offset: number }[] = [];
    for (let slot = this.#ranks.indexOf(rank); slot >= 0; ) {
      const at = slot * SLOT_WORDS;
      const [low, high] = [this.#slots[at + KEY_LOW]!, this.#slots[at + KEY_HIGH]!];
      found.push({ slot, file: (high >>> 12) - 1, offset: offsetOf(low, high) });
      slot = this.#ranks.indexOf(rank, slot + 1);
    }
    found.sort((a, b) => a.file - b.file || a.offset - b.offset);
    for (const { slot, file, offset } of found) {
      write(file, offset, this.bytes.subarray(slot * SLICE_SIZE, (slot + 1) * SLICE_SIZE));
      this.#setRank(slot, 0);
    }
  }

  /** Drops the slices, dirty or not, of `length` bytes of a file: they mean something else now. */
  forget(file: number, offset: number, length: number, sliceSize: number): void {
    for (let at = offset; at < offset + length; at += sliceSize) {
      const low = keyLow(at);
      const high = keyHigh(file, at);
      const set = this.#setOf(low, high);
      lock(this.#locks, set, this.#owner);
      const slot = this.#lookUp(set, low, high);
      if (slot >= 0) {
        this.#setRank(slot, 0);
        Atomics.add(this.#slots, slot * SLOT_WORDS + SEQUENCE, 1);
        this.#finish(slot, 0, 0);
      }
      unlock(this.#locks, set);
    }
  }

  #setOf(low: number, high: number): number {
    return (Math.imul(low ^ Math.imul(high, 0x85ebca6b), 0x9e3779b1) >>> 8) & this.#setMask;
  }

  #dirtyOf(set: number): number {
    let dirty = 0;
    for (let slot = set * WAYS; slot < (set + 1) * WAYS; slot++) {
      if (this.#ranks[slot] !== 0) dirty++;
    }
    return dirty;
  }

  #setRank(slot: number, rank: number): void {
    const old = this.#ranks[slot]!;
    if (old === rank) return;
    if (old !== 0) this.#dirtyCounts[old]!--;
    if (rank !== 0) this.#dirtyCounts[rank]!++;
    this.#ranks[slot] = rank;
  }

  /** Frees what the dead thread `owner` held; slices that it was filling are forgotten. */
  recover(owner: number): void {
    for (let set = 0; set <= this.#setMask; set++) {
      if (!isHeldBy(this.#locks, set, owner)) continue;
      for (let slot = set * WAYS; slot < (set + 1) * WAYS; slot++) {
        const sequence = Atomics.load(this.#slots, slot * SLOT_WORDS + SEQUENCE);
        if ((sequence & 1) === 0) continue;
        this.#setRank(slot, 0);
        this.#finish(slot, 0, 0);
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
      const slot = this.#fillVictim(set, low, high, file, offset);
      this.sequence = Atomics.load(this.#slots, slot * SLOT_WORDS + SEQUENCE);
      return slot;
    } finally {
      unlock(this.#locks, set);
    }
  }

  /** With the set's lock: loads the slice into the slot that can be spared best. */
  #fillVictim(set: number, low: number, high: number, file: number, offset: number): number {
    this.#counters.miss();
    const slot = this.#victim(set);
    Atomics.add(this.#slots, slot * SLOT_WORDS + SEQUENCE, 1);
    const slice = this.bytes.subarray(slot * SLICE_SIZE, (slot + 1) * SLICE_SIZE);
    let loaded = false;
    try {
      this.#load(file, offset, slice);
      loaded = true;
    } finally {
      this.#finish(slot, loaded ? low : 0, loaded ? high : 0);
    }
    return slot;
  }

  /** Ends a fill: the slot holds the slice of that key, or nothing. */
  #finish(slot: number, low: number, high: number): void {
    const at = slot * SLOT_WORDS;
    Atomics.store(this.#slots, at + KEY_LOW, low);
    Atomics.store(this.#slots, at + KEY_HIGH, high);
    Atomics.store(this.#slots, at + USED, 1);
    Atomics.add(this.#slots, at + SEQUENCE, 1);
  }

  /** A clean slot of the set: an empty one, or one not used since the last time one was looked for. */
  #victim(set: number): number {
    const slots = this.#slots;
    const ranks = this.#ranks;
    const first = set * WAYS;
    for (let slot = first; slot < first + WAYS; slot++) {
      if (slots[slot * SLOT_WORDS + KEY_HIGH] === 0) return slot;
    }
    for (let slot = first; slot < first + WAYS; slot++) {
      if (slots[slot * SLOT_WORDS + USED] === 0 && ranks[slot] === 0) return slot;
    }
    for (let slot = first; slot < first + WAYS; slot++) slots[slot * SLOT_WORDS + USED] = 0;
    // Any clean one will do; the sequence of the first spreads the choice over the ways.
    const start = Atomics.load(slots, first * SLOT_WORDS + SEQUENCE) >>> 1;
    let slot = first + (start % WAYS);
    while (ranks[slot] !== 0) slot = first + ((slot - first + 1) % WAYS);
    return slot;
  }
}
