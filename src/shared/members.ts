/**
 * The images of a mount that shows many, by their numbers, in shared memory: which of them are open, how many
 * files of each are, how many of its nodes the kernel knows, and when it was used last. The main thread
 * opens and closes images; workers use those that are open.
 *
 * A worker says in its `WorkerStatus` which image it is about to use, and looks behind that whether it is open
 * still. Who closes marks the image first, and looks behind that whether a worker is in it: at least one of
 * the two sees the other.
 */

/** Numbers are below it, and above 0. */
export const MEMBER_LIMIT = 1 << 16;

// Words of the table itself, then those of each member.
const TICK = 0;
const CLOSINGS = 1;
const FIRST = 4;
const MEMBER_WORDS = 4;
const STATE = 0;
const FILES = 1;
const LOOKUPS = 2;
const USED = 3;

// The low bits of a state; above them the number of times that it was opened.
const PHASE_MASK = 3;
const CLOSED = 0;
const OPEN = 1;
const CLOSING = 2;
const EPOCH = 4;

export function allocateMembers(): SharedArrayBuffer {
  return new SharedArrayBuffer((FIRST + MEMBER_LIMIT * MEMBER_WORDS) * 4);
}

/** Whether an image in that state is open; each time that it is opened it has another one. */
export function isOpenState(state: number): boolean {
  return (state & PHASE_MASK) === OPEN;
}

export class Members {
  readonly #words: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory);
  }

  state(member: number): number {
    return Atomics.load(this.#words, at(member, STATE));
  }

  /** The main thread has opened it; answers its state. */
  open(member: number): number {
    const state = ((this.state(member) & ~PHASE_MASK) + EPOCH) | OPEN;
    Atomics.store(this.#words, at(member, STATE), state);
    return state;
  }

  /** From now on no worker begins to use it: `reopen` or `close` follows. */
  beginClosing(member: number): void {
    Atomics.store(this.#words, at(member, STATE), (this.state(member) & ~PHASE_MASK) | CLOSING);
  }

  /** It stays open, as it was. */
  reopen(member: number): void {
    Atomics.store(this.#words, at(member, STATE), (this.state(member) & ~PHASE_MASK) | OPEN);
  }

  close(member: number): void {
    Atomics.store(this.#words, at(member, STATE), (this.state(member) & ~PHASE_MASK) | CLOSED);
    Atomics.add(this.#words, CLOSINGS, 1);
  }

  /** Grows whenever one was closed. */
  get closings(): number {
    return Atomics.load(this.#words, CLOSINGS);
  }

  /** Files of it that programs have open. */
  files(member: number): number {
    return Atomics.load(this.#words, at(member, FILES));
  }

  addFiles(member: number, change: 1 | -1): void {
    Atomics.add(this.#words, at(member, FILES), change);
  }

  /** How often the kernel was told of nodes in it, less what it has forgotten. */
  lookups(member: number): number {
    return Atomics.load(this.#words, at(member, LOOKUPS));
  }

  addLookups(member: number, change: number): void {
    Atomics.add(this.#words, at(member, LOOKUPS), change);
  }

  /** Ticks of the main thread's clock. */
  get now(): number {
    return Atomics.load(this.#words, TICK);
  }

  tick(): void {
    Atomics.add(this.#words, TICK, 1);
  }

  /** It is being used: no lock, as nobody minds a tick. */
  use(member: number): void {
    this.#words[at(member, USED)] = this.#words[TICK]!;
  }

  /** When it was used last. */
  used(member: number): number {
    return Atomics.load(this.#words, at(member, USED));
  }

  /** Lets a worker pause, which cannot wait for events. */
  pause(milliseconds: number): void {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
  }

  /** The number is given to another image, which nobody knows yet. */
  renew(member: number): void {
    Atomics.store(this.#words, at(member, FILES), 0);
    Atomics.store(this.#words, at(member, LOOKUPS), 0);
  }
}

function at(member: number, word: number): number {
  return FIRST + member * MEMBER_WORDS + word;
}
