/**
 * What the threads of one copy share: how far the disk is handed out, whose turn it is to lay out what
 * it has read, and whether all are to stop. Ranges are handed out in the disk's order, each with a
 * ticket, and laid out in the order of the tickets, so that the same disk makes the same file however
 * many threads there are.
 *
 * Order of locks: the claim is let go before a turn is waited for; nothing is held while a thread reads.
 */
import { lock, unlock } from './futex.js';

/** Words; each has a cache line of its own. */
const CLAIM = 0;
const TURN = 16;
const STOPPED = 32;
const TAKEN_OVER = 48;
/** Numbers behind them, by index. */
const NUMBERS_OFFSET = 64 * 4;
const POSITION = 0;
const NEXT_TICKET = 1;
const DUE_MS = 2;
const LAYOUT = 8;
const NUMBERS = 16;

/** A stop that comes between a look and a sleep is seen after so long. */
const NAP_MS = 20;

export function allocateCopyState(): SharedArrayBuffer {
  return new SharedArrayBuffer(NUMBERS_OFFSET + NUMBERS * 8);
}

export class CopyState {
  readonly #words: Int32Array;
  readonly #numbers: Float64Array;
  readonly #owner: number;
  /** Eight numbers of whoever lays out, zeroes at first: only for who has the turn. */
  readonly layout: Float64Array;

  /** `owner`: the thread's number, from 1. */
  constructor(memory: SharedArrayBuffer, owner: number) {
    this.#words = new Int32Array(memory, 0, NUMBERS_OFFSET / 4);
    this.#numbers = new Float64Array(memory, NUMBERS_OFFSET, NUMBERS);
    this.layout = this.#numbers.subarray(LAYOUT);
    this.#owner = owner;
  }

  get stopped(): boolean {
    return Atomics.load(this.#words, STOPPED) !== 0;
  }

  /** Whether a worker has begun. */
  get takenOver(): boolean {
    return Atomics.load(this.#words, TAKEN_OVER) !== 0;
  }

  /** Before a worker's first claim: whoever claims after it knows. */
  takeOver(): void {
    Atomics.store(this.#words, TAKEN_OVER, 1);
  }

  /** All threads end at their next step. */
  stop(): void {
    Atomics.store(this.#words, STOPPED, 1);
    Atomics.notify(this.#words, STOPPED);
  }

  /**
   * Calls `body` with the place up to which the disk is handed out, alone; it answers the new place,
   * in bytes, and may take a ticket. What it throws is thrown here, and the place stays. It is not called
   * where all are to stop or, with `givesWay`, a worker has begun, while another has the claim: that one may
   * have died with it.
   */
  claim(body: (position: number) => number, givesWay: boolean): void {
    while (!lock(this.#words, CLAIM, this.#owner, NAP_MS)) {
      if (this.stopped || (givesWay && this.takenOver)) return;
    }
    try {
      this.#numbers[POSITION] = body(this.#numbers[POSITION]!);
    } finally {
      unlock(this.#words, CLAIM);
    }
  }

  /** Within a claim: the next number. */
  takeTicket(): number {
    return this.#numbers[NEXT_TICKET]!++;
  }

  /** Within a claim: when `bytes` may be written that come at `rate` a second, by performance.now(). */
  reserveTime(bytes: number, rate: number, now: number): number {
    const due = Math.max(now, this.#numbers[DUE_MS]!);
    this.#numbers[DUE_MS] = due + (bytes / rate) * 1000;
    return due;
  }

  /** Sleeps, but not when all are to stop. */
  sleep(ms: number): void {
    if (ms > 0) Atomics.wait(this.#words, STOPPED, 0, ms);
  }

  /** Waits until all tickets before have passed their turn. False: all are to stop. */
  awaitTurn(ticket: number): boolean {
    for (;;) {
      if (this.stopped) return false;
      const seen = Atomics.load(this.#words, TURN);
      if (seen === ticket) return true;
      Atomics.wait(this.#words, TURN, seen, NAP_MS);
    }
  }

  endTurn(): void {
    Atomics.add(this.#words, TURN, 1);
    Atomics.notify(this.#words, TURN);
  }
}
