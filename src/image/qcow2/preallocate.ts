/**
 * Space for clusters that come new at the disk's end, as `preallocation` asks for: host clusters that
 * read as zeroes, named before anybody sees them. With the reservation.
 */
import type { IoBuffer } from '../../sys/io-buffer.js';
import { type Steps, stepsWithin } from '../steps.js';
import type { Preallocation } from '../writer.js';
import type { Allocator } from './allocator.js';
import { copiedHigh, hostLow } from './l2.js';
import { L2Entry, type L2Tables } from './l2-tables.js';
import type { Run } from './refcount.js';
import type { Tables } from './tables.js';

/** How the clusters come to be: named alone, with the host's space set aside, or written. */
export type NewSpace = Exclude<Preallocation, 'off'>;

export class Preallocator {
  readonly #tables: Tables;
  readonly #l2: L2Tables;
  readonly #allocator: Allocator;
  readonly #zeroes: IoBuffer;
  readonly #entry = new L2Entry();

  constructor(tables: Tables, l2: L2Tables, allocator: Allocator, zeroes: IoBuffer) {
    this.#tables = tables;
    this.#l2 = l2;
    this.#allocator = allocator;
    this.#zeroes = zeroes;
  }

  /**
   * Gives each cluster of [from, to), of which no entry says anything, a host cluster that is zero.
   * `flagged`: the entries say so themselves, where the version can.
   */
  *allocate(from: number, to: number, how: NewSpace, flagged: boolean): Steps<void> {
    const { clusterSize, l2Coverage } = this.#tables.geometry;
    for (let guest = from; guest < to; ) {
      const l1Index = Math.floor(guest / l2Coverage);
      const table = this.#l2.forWriting(l1Index);
      const index = Math.floor((guest % l2Coverage) / clusterSize);
      const stop = Math.min(to, (l1Index + 1) * l2Coverage);
      const run = this.#placesFor(guest, (stop - guest) / clusterSize);
      let linked = 0;
      try {
        const done = (at: number) => (at - from) / (to - from);
        const steps = this.#prepare(run, how);
        yield* stepsWithin(steps, done(guest), done(guest + run.count * clusterSize));
        for (; linked < run.count; linked++) {
          this.#link(table, index + linked, (run.first + linked) * clusterSize, flagged);
        }
      } catch (error) {
        if (this.#tables.data === null) {
          this.#allocator.undo({ first: run.first + linked, count: run.count - linked });
        }
        throw error;
      }
      guest += run.count * clusterSize;
    }
  }

  /** Makes sure that the data file has room for [from, to) of the disk, where it is zero already. */
  *fillDataFile(from: number, to: number, how: NewSpace): Steps<void> {
    const data = this.#tables.data!;
    if (how === 'metadata' || (how === 'falloc' && data.reserve(from, to - from))) return;
    for (let at = from; at < to; ) {
      yield (at - from) / (to - from);
      const n = Math.min(to - at, this.#zeroes.length);
      data.write(this.#zeroes, 0, n, at);
      at += n;
    }
  }

  #placesFor(guest: number, count: number): Run {
    if (this.#tables.data === null) return this.#allocator.allocate(count);
    return { first: guest / this.#tables.geometry.clusterSize, count };
  }

  *#prepare({ first, count }: Run, how: NewSpace): Steps<void> {
    const { state, storage, geometry, data } = this.#tables;
    yield 0;
    if (data !== null) return;
    const offset = first * geometry.clusterSize;
    const length = count * geometry.clusterSize;
    const virgin = first >= state.virginFrom;
    if (virgin && how === 'metadata') {
      if (storage.size() < offset + length) storage.truncate(offset + length);
    } else if (!virgin || how === 'full' || !storage.reserve(offset, length)) {
      for (let done = 0; done < length; done += this.#zeroes.length) {
        yield done / length;
        const n = Math.min(length - done, this.#zeroes.length);
        this.#tables.writeZeroes(offset + done, n);
      }
    }
    state.virginFrom = Math.max(state.virginFrom, first + count);
    state.unflushed = true;
  }

  #link(table: number, index: number, host: number, flagged: boolean): void {
    const { extendedL2, version } = this.#tables.geometry;
    const zero = flagged && version >= 3;
    const entry = this.#entry.set(hostLow(host, zero && !extendedL2), copiedHigh(host));
    if (extendedL2 && zero) entry.zero = 0xffff_ffff;
    else if (extendedL2) entry.allocated = 0xffff_ffff;
    this.#l2.write(table, index, entry);
  }
}
