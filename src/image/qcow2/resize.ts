/**
 * The disk's size. Growing: a longer L1 table first, if it takes one, and the size last, by the next flush; the new part
 * reads as zeroes, whatever a backing file has there. Cutting: the size goes down first, so that no
 * crash shows a disk with holes at its end; then what lies behind is freed. A crash between leaves
 * clusters behind the end, which growing frees before anybody sees them. With the reservation, alone.
 *
 * Emptying: each cluster that is let go of reads as what lies below it from then on, one by one.
 */
import { alignUp } from '../../codec/bits.js';
import { ImageError, isExpected } from '../../errors.js';
import { RANK } from '../../shared/slice-cache.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import { SECTOR_SIZE } from '../extent.js';
import { type Steps, stepsWithin } from '../steps.js';
import type { Preallocation } from '../writer.js';
import type { Allocator } from './allocator.js';
import type { Zeroer } from './discard.js';
import type { Flusher } from './flush.js';
import type { GuestData } from './guest-data.js';
import { l1EntriesFor } from './geometry.js';
import { setL1, setSize } from './header-edit.js';
import { LIMIT } from './layout.js';
import type { L2Tables } from './l2-tables.js';
import type { NewSpace, Preallocator } from './preallocate.js';
import type { Tables } from './tables.js';

const L1_ENTRY_SIZE = 8;
/** The part of the work that is done once a data file is filled. */
const FILLED = 0.9;
/** Bytes. */
const WRITTEN_AT_ONCE = 1 << 20;

export class Resizer {
  readonly #tables: Tables;
  readonly #l2: L2Tables;
  readonly #allocator: Allocator;
  readonly #flusher: Flusher;
  readonly #zeroer: Zeroer;
  readonly #preallocator: Preallocator;
  readonly #data: GuestData;

  constructor(
    tables: Tables,
    l2: L2Tables,
    allocator: Allocator,
    flusher: Flusher,
    zeroer: Zeroer,
    preallocator: Preallocator,
    guestData: GuestData,
  ) {
    this.#data = guestData;
    this.#tables = tables;
    this.#l2 = l2;
    this.#allocator = allocator;
    this.#flusher = flusher;
    this.#zeroer = zeroer;
    this.#preallocator = preallocator;
  }

  /** `preallocation`: of the new part. What is thrown in leaves the size as it was. */
  *resize(size: number, preallocation: Preallocation): Steps<void> {
    const { state } = this.#tables;
    this.#check(size);
    if (size > state.size) yield* this.#grow(size, preallocation);
    else if (size < state.size) this.#cut(size);
  }

  /** Puts the active L1 table where it has at least `entries` entries. */
  growL1(entries: number): void {
    const { geometry, state, storage } = this.#tables;
    if (entries <= state.l1Size) return;
    this.#checkL1(entries);
    // All entries are in the file then.
    this.#flusher.flush();
    const table = new IoBuffer(entries * L1_ENTRY_SIZE);
    storage.read(table, 0, state.l1Size * L1_ENTRY_SIZE, state.l1TableOffset);
    const clusters = Math.ceil(table.length / geometry.clusterSize);
    const offset = this.#allocator.makeTable(clusters, (place) => {
      // The whole clusters, so that the entries behind the last one are zero too.
      this.#tables.clear(place, clusters * geometry.clusterSize);
      this.#tables.writeTable(place, table, table.length);
      this.#flusher.flushCounts();
    });
    setL1(storage, { l1TableOffset: offset, l1Size: entries });
    this.#flusher.sync();
    const old = { offset: state.l1TableOffset, size: state.l1Size * L1_ENTRY_SIZE };
    state.l1TableOffset = offset;
    state.l1Size = entries;
    if (old.size > 0) this.#allocator.freeTable(old.offset, old.size);
  }

  /** Lets go of all clusters of the disk: what lies below it is read then. Durable when it returns. */
  empty(): void {
    const { geometry, state, data } = this.#tables;
    this.freeTables(0, l1EntriesFor(geometry, state.size));
    this.#flusher.flushCounts();
    // No entry names what it holds any more, and that is durable.
    data?.punch(0, state.size);
    this.#allocator.trim();
  }

  #check(size: number): void {
    const { geometry, storage } = this.#tables;
    if (size % SECTOR_SIZE !== 0) {
      throw new ImageError('invalid', 'EINVAL', `${storage.name}: cannot resize to ${size} bytes`, {
        limit: `a multiple of ${SECTOR_SIZE}`,
      });
    }
    this.#checkL1(l1EntriesFor(geometry, size));
  }

  #checkL1(entries: number): void {
    if (entries * L1_ENTRY_SIZE <= LIMIT.MAX_L1_SIZE) return;
    const { geometry, storage } = this.#tables;
    const most = (LIMIT.MAX_L1_SIZE / L1_ENTRY_SIZE) * geometry.l2Coverage;
    throw new ImageError('invalid', 'EFBIG', `${storage.name}: the disk cannot become that large`, {
      limit: `at most ${most} bytes with clusters of ${geometry.clusterSize}`,
    });
  }

  *#grow(size: number, preallocation: Preallocation): Steps<void> {
    const { geometry, state } = this.#tables;
    const old = state.size;
    this.growL1(l1EntriesFor(geometry, size));
    const whole = alignUp(size, geometry.clusterSize);
    this.#zeroer.cutOff(alignUp(old, geometry.clusterSize), whole);
    state.size = size;
    try {
      this.#tables.data?.grow(old, size, preallocation !== 'off');
      // What the last cluster holds behind the old end, and what a longer backing file has there.
      const stale = Math.min(size, alignUp(old, geometry.clusterSize));
      if (stale > old) this.#zeroer.zero(old, stale - old, false);
      if (preallocation !== 'off') yield* this.#preallocate(old, size, preallocation);
      if (this.#tables.data?.raw === true) this.#zeroer.adopt(stale, size);
      else if (preallocation === 'off') this.#zeroer.hideBelow(stale, size);
    } catch (error) {
      state.size = old;
      throw error;
    }
    // The header follows with the next flush, behind all that is to be seen then.
    state.pendingSize = size;
    state.bumpGeneration();
  }

  /** Space for what is new behind `old`; nothing of it is left where that fails. */
  *#preallocate(old: number, size: number, how: NewSpace): Steps<void> {
    const { data } = this.#tables;
    try {
      // Filling it takes nearly all of the time.
      const filled = data === null ? 0 : FILLED;
      if (data !== null) {
        yield* stepsWithin(this.#preallocator.fillDataFile(old, size, how), 0, filled);
      }
      if (data?.raw !== true) yield* stepsWithin(this.#allocate(old, size, how), filled, 1);
      yield 1;
    } catch (error) {
      this.#giveBack(old, size);
      throw error;
    }
  }

  *#allocate(old: number, size: number, how: NewSpace): Steps<void> {
    const { geometry } = this.#tables;
    if (this.#data.encrypted && geometry.version < 3) {
      // Only what is written reads as zeroes.
      for (let at = old; at < size; at += WRITTEN_AT_ONCE) {
        yield (at - old) / (size - old);
        this.#zeroer.write(at, Math.min(size, at + WRITTEN_AT_ONCE));
      }
      return;
    }
    // As QEMU: over a longer backing file the clusters that are only named say what they are.
    const hides = how === 'metadata' && this.#zeroer.below > old;
    const [from, to] = [alignUp(old, geometry.clusterSize), alignUp(size, geometry.clusterSize)];
    yield* this.#preallocator.allocate(from, to, how, hides || this.#data.encrypted);
  }

  /** Frees what was preallocated in (`old`, `size`]. What goes wrong meanwhile is worth less than what did before. */
  #giveBack(old: number, size: number): void {
    const { geometry, data } = this.#tables;
    try {
      if (data?.raw !== true) {
        const whole = alignUp(old, geometry.clusterSize);
        this.#zeroer.cutOff(whole, alignUp(size, geometry.clusterSize));
      }
      data?.cut(old);
      this.#flusher.flushCounts();
      this.#allocator.trim();
    } catch (error) {
      if (!isExpected(error)) throw error;
    }
  }

  #cut(size: number): void {
    const { geometry, state, storage } = this.#tables;
    const old = state.size;
    this.#flusher.flush();
    setSize(storage, size);
    this.#flusher.sync();
    state.size = size;
    state.bumpGeneration();
    const first = l1EntriesFor(geometry, size);
    const between = Math.min(first * geometry.l2Coverage, alignUp(old, geometry.clusterSize));
    this.#zeroer.cutOff(alignUp(size, geometry.clusterSize), between);
    this.freeTables(first, l1EntriesFor(geometry, old));
    this.#tables.data?.cut(size);
    this.#flusher.flushCounts();
    this.#allocator.trim();
  }

  /** Lets go of all that the L1 entries from `first` up to `end` map; nobody must see it any more. */
  freeTables(first: number, end: number): void {
    const { l2Coverage } = this.#tables.geometry;
    this.#zeroer.cutOff(first * l2Coverage, end * l2Coverage);
    for (let index = first; index < end; index++) this.#freeTable(index);
  }

  /** Lets go of an L2 table whose entries are gone. */
  #freeTable(l1Index: number): void {
    const table = this.#l2.find(l1Index);
    if (table === 0) return;
    const at = this.#tables.state.l1TableOffset + l1Index * L1_ENTRY_SIZE;
    this.#tables.write(at, 0, 0, RANK.L1);
    this.#allocator.freeTable(table, this.#tables.geometry.clusterSize);
  }
}
