/**
 * Writing back, in the order that a crash at any point can be survived:
 *
 *   1. refcount blocks       with them all data is durable; a crash leaves clusters counted but unused
 *   2. the refcount table    names blocks that are durable
 *   3. L2 tables             refer to data and counts that are durable
 *   4. the L1 table          refers to L2 tables that are durable
 *   5. the disk's size       shows what is zero behind the old end, or was written there
 *   6. freed clusters        nothing durable refers to them any more: their counts go down, and only
 *                            now can they be used again, or become holes
 *
 * Each step ends with a flush of the file where a later one depends on it. Step 6's counts go out with
 * the next flush: until then a crash leaks those clusters.
 *
 * With lazy refcounts, steps 1 and 2 wait for `flushAll`: the dirty bit, set before the first count
 * changed, says that the counts on disk mean nothing.
 */
import type { ImageLock } from '../../shared/image-lock.js';
import { RANK, type Rank } from '../../shared/slice-cache.js';
import type { FaultEvent } from '../../storage/faults.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import { refuseAfterFailure } from '../sticky-flush.js';
import type { Allocator } from './allocator.js';
import type { DirtyBit } from './dirty-bit.js';
import { setSize } from './header-edit.js';
import type { Tables } from './tables.js';

export class Flusher {
  readonly #tables: Tables;
  readonly #allocator: Allocator;
  readonly #dirtyBit: DirtyBit;
  readonly #lock: ImageLock;
  readonly #lazy: boolean;
  readonly #scratch: IoBuffer;
  #applying = false;

  /** `lazy`: refcounts may wait, the image has the feature. */
  constructor(
    tables: Tables,
    allocator: Allocator,
    dirtyBit: DirtyBit,
    lock: ImageLock,
    lazy: boolean,
  ) {
    this.#tables = tables;
    this.#allocator = allocator;
    this.#dirtyBit = dirtyBit;
    this.#lock = lock;
    this.#lazy = lazy;
    this.#scratch = new IoBuffer(tables.geometry.sliceSize);
  }

  /** Makes durable all that was written before. With the reservation. */
  flush(): void {
    this.#writeBack(!this.#lazy || !this.#dirtyBit.isSet);
  }

  /** The same, the counts included, and nothing is left to be freed. */
  flushCounts(): void {
    this.#writeBack(true);
    // Freeing changes counts, and may free what was freed only now.
    while (this.#isDirty(RANK.REFCOUNT_BLOCK)) this.#writeBack(true);
  }

  /**
   * Writes the counts that are known, without making them durable: for lazy refcounts, where they wait
   * otherwise. As in QEMU, a process that is killed leaves its L2 tables counted.
   */
  writeCounts(): void {
    this.#write(RANK.REFCOUNT_BLOCK);
  }

  /** As `flushCounts`, and the dirty bit is clear. */
  flushAll(): void {
    this.flushCounts();
    this.#dirtyBit.clear();
  }

  /** Whether a flush has anything to do. */
  get needed(): boolean {
    const { state, cache } = this.#tables;
    if (state.unflushed || state.pendingSize > 0 || state.freedRuns > 0) return true;
    return RANKS.some((rank) => cache.dirtyCount(rank) > 0);
  }

  #writeBack(counts: boolean): void {
    const { state, storage } = this.#tables;
    refuseAfterFailure(state, storage.name);
    const late = this.#isDirty(RANK.L2) || this.#isDirty(RANK.L1);
    let pending = state.unflushed || late || state.pendingSize > 0 || state.freedRuns > 0;
    const { data } = this.#tables;
    state.unflushed = false;
    try {
      // Before all entries that say what it holds.
      if (pending) data?.flush();
      if (counts) {
        pending = this.#write(RANK.REFCOUNT_BLOCK) || pending;
        if (this.#isDirty(RANK.REFCOUNT_TABLE)) {
          this.sync();
          this.#write(RANK.REFCOUNT_TABLE);
          pending = true;
        }
      }
      if (pending) this.sync();
      if (this.#write(RANK.L2)) this.sync();
      if (this.#write(RANK.L1)) this.sync();
      this.#writeSize();
    } catch (error) {
      state.unflushed = true;
      throw error;
    }
    this.#applyFreed();
  }

  /** Lowers the counts of what was freed before, once nobody can still be reading it. */
  #applyFreed(): void {
    const { state } = this.#tables;
    const runs = state.freedRuns;
    if (runs === 0 || this.#applying) return;
    this.#lock.beAlone();
    this.#applying = true;
    let done = 0;
    try {
      while (done < runs) {
        const { first, count } = state.freedRun(done);
        // Counted as done before it is: if it fails in the middle, the rest of it is leaked.
        done++;
        this.#allocator.release(first, count);
      }
    } finally {
      state.dropFreedRuns(done);
      this.#lock.letIn();
      this.#applying = false;
    }
  }

  #isDirty(rank: Rank): boolean {
    return this.#tables.cache.dirtyCount(rank) > 0;
  }

  #writeSize(): void {
    const { state, storage } = this.#tables;
    if (state.pendingSize === 0) return;
    setSize(storage, state.pendingSize);
    this.sync();
    state.pendingSize = 0;
  }

  #write(rank: Rank): boolean {
    if (!this.#isDirty(rank)) return false;
    const { cache, geometry, storage } = this.#tables;
    const { sliceSize } = geometry;
    storage.faults?.happens(EVENTS[rank]);
    cache.writeBack(rank, (_file, offset, bytes) => {
      this.#scratch.bytes.set(bytes.subarray(0, sliceSize));
      this.#scratch.bytes.swap64();
      storage.write(this.#scratch, 0, sliceSize, offset);
    });
    return true;
  }

  /** Flushes the file alone. */
  sync(): void {
    this.#tables.storage.flush();
  }
}

/** What writing slices back is called for who fails on purpose. */
const EVENTS: Readonly<Record<Rank, FaultEvent>> = {
  [RANK.REFCOUNT_BLOCK]: 'refblock_update',
  [RANK.REFCOUNT_TABLE]: 'reftable_update',
  [RANK.L2]: 'l2_update',
  [RANK.L1]: 'l1_update',
};
const RANKS = Object.values(RANK);
