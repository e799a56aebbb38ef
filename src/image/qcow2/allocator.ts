/**
 * Host clusters for what is written, and back. A cluster that lost its reference stays as it is, and
 * is not used for anything else, until the entry that let go of it is durable: a crash before that
 * finds it in place. The flush then lowers its count, and if nobody else has it, gives it back to the
 * host as a hole.
 */
import { ERRNO, errnoOf } from '../../errors.js';
import { type ImageState, MAX_FREED_RUNS } from '../../shared/image-state.js';
import type { OverlapGuard } from './overlap.js';
import type { Refcounts, Run } from './refcount.js';
import type { Tables } from './tables.js';

/** Runs of clusters that one changed entry can let go of, and more. */
const ROOM_TO_FREE = 8;

export class Allocator {
  readonly #tables: Tables;
  readonly #refcounts: Refcounts;
  readonly #guard: OverlapGuard;
  readonly #state: ImageState;
  readonly #clusterSize: number;
  readonly #punch: boolean;

  /** `punch`: whether freed clusters become holes of the host's file. */
  constructor(tables: Tables, refcounts: Refcounts, guard: OverlapGuard, punch: boolean) {
    this.#tables = tables;
    this.#refcounts = refcounts;
    this.#guard = guard;
    this.#state = tables.state;
    this.#clusterSize = tables.geometry.clusterSize;
    this.#punch = punch;
  }

  /** Adjacent free clusters for data, `most` at most; their count is 1 now. */
  allocate(most: number): Run {
    const run = this.#find((from) => this.#refcounts.findFree(from, most));
    this.#guard.check(run.first, run.count);
    // First the hint: counting may flush, and what that frees lowers it.
    this.#state.freeHint = run.first + run.count;
    this.#refcounts.add(run.first, run.count, 1);
    this.#state.countAllocated(run.count * this.#clusterSize);
    return run;
  }

  /** Looks for free clusters; where there are none, once more after those that wait are let go. */
  #find(look: (from: number) => Run): Run {
    try {
      return look(this.#state.freeHint);
    } catch (error) {
      if (errnoOf(error) !== ERRNO.ENOSPC) throw error;
      this.#tables.makeRoom();
      return look(0);
    }
  }

  /** Exactly `count` adjacent clusters for metadata. Answers the offset of the first one. */
  allocateTable(count = 1): number {
    const { first } = this.#find((from) => this.#refcounts.findFreeRun(from, count));
    this.#guard.claim(first, count);
    if (count === 1) this.#state.freeHint = first + 1;
    this.#refcounts.add(first, count, 1);
    this.#state.countAllocated(count * this.#clusterSize);
    return first * this.#clusterSize;
  }

  /** The same, filled by `fill`; taken back where that fails. */
  makeTable(count: number, fill: (offset: number) => void): number {
    const offset = this.allocateTable(count);
    try {
      fill(offset);
      return offset;
    } catch (error) {
      this.undoTable(offset, count);
      throw error;
    }
  }

  /** Takes back the clusters of a table that nothing refers to. */
  undoTable(offset: number, count: number): void {
    const first = offset / this.#clusterSize;
    this.#tables.forget(offset, count * this.#clusterSize);
    this.#guard.disclaim(first, count);
    this.release(first, count);
  }

  /**
   * A place for `length` bytes of compressed data, less than a cluster: behind the last ones where
   * their host cluster has room for them and can count one more reference. Each host cluster that they
   * touch has one more now.
   */
  allocateBytes(length: number): number {
    const size = this.#clusterSize;
    const tail = this.#state.compressedTail;
    const shared = Math.floor(tail / size);
    const canShare = tail > 0 && this.#refcounts.get(shared) < this.#refcounts.max;
    const left = canShare ? size - (tail % size) : 0;
    if (left >= length) {
      this.#refcounts.add(shared, 1, 1);
      return this.#moveTail(tail, length);
    }
    const fresh = this.#allocateForBytes();
    // Finding it may have flushed, and so have freed what lay before.
    const adjoins = left > 0 && fresh === shared + 1 && this.#state.compressedTail === tail;
    if (!adjoins) return this.#moveTail(fresh * size, length);
    try {
      this.#refcounts.add(shared, 1, 1);
    } catch (error) {
      this.release(fresh, 1);
      throw error;
    }
    return this.#moveTail(tail, length);
  }

  #allocateForBytes(): number {
    const { state } = this.#tables;
    const { first } = this.allocate(1);
    // Other bytes may have been expanded from there, and been kept.
    if (first < state.virginFrom) state.bumpCompressedEpoch();
    state.virginFrom = Math.max(state.virginFrom, first + 1);
    return first;
  }

  #moveTail(place: number, length: number): number {
    const end = place + length;
    this.#state.compressedTail = end % this.#clusterSize === 0 ? 0 : end;
    return place;
  }

  /** Takes back a place for compressed data that nothing refers to. */
  undoBytes(place: number, length: number): void {
    const first = Math.floor(place / this.#clusterSize);
    const last = Math.floor((place + length - 1) / this.#clusterSize);
    this.release(first, last - first + 1);
  }

  /** Takes an allocation back that nothing refers to, nor did. */
  undo(run: Run): void {
    this.release(run.first, run.count);
  }

  /** After it, a few calls of `free` need no flush, and so cannot fail. */
  makeRoomToFree(): void {
    if (MAX_FREED_RUNS - this.#state.freedRuns < ROOM_TO_FREE) this.#tables.makeRoom();
  }

  /** These clusters lost one reference, in an entry that is not durable yet. */
  free(first: number, count: number): void {
    while (!this.#state.addFreedRun(first, count)) this.#tables.makeRoom();
  }

  /** The same for a table: the cache forgets it at once. */
  freeTable(offset: number, size: number): void {
    this.#tables.forget(offset, size);
    const first = offset / this.#clusterSize;
    const count = Math.ceil(size / this.#clusterSize);
    this.#guard.disclaim(first, count);
    this.free(first, count);
  }

  /** Cuts free clusters off the end of the file. After a flush of the counts. */
  trim(): void {
    const { storage } = this.#tables;
    const size = storage.size();
    let end = Math.ceil(size / this.#clusterSize);
    while (end > 0 && this.#refcounts.get(end - 1) === 0) end--;
    if (end * this.#clusterSize >= size) return;
    try {
      storage.truncate(end * this.#clusterSize);
    } catch (error) {
      // Block devices keep their size.
      if (errnoOf(error) !== ERRNO.EINVAL) throw error;
    }
  }

  /** Lowers the counts of clusters that nothing durable refers to; those that reach 0 are free. */
  release(first: number, count: number): void {
    this.#refcounts.add(first, count, -1);
    for (let cluster = first; cluster < first + count; ) {
      if (this.#refcounts.get(cluster) !== 0) {
        cluster++;
        continue;
      }
      const start = cluster;
      while (cluster < first + count && this.#refcounts.get(cluster) === 0) cluster++;
      // An entry may have named a table: it must not become a hole.
      this.#guard.check(start, cluster - start);
      this.#guard.disclaim(start, cluster - start);
      this.#state.freeHint = Math.min(this.#state.freeHint, start);
      const tail = Math.floor(this.#state.compressedTail / this.#clusterSize);
      if (tail >= start && tail < cluster) this.#state.compressedTail = 0;
      if (this.#punch) {
        const length = (cluster - start) * this.#clusterSize;
        this.#tables.storage.punch(start * this.#clusterSize, length);
      }
    }
  }
}
