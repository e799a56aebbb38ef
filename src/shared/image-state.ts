/**
 * What changes about an image while it is written to, in shared memory: plain words that only the
 * holder of the image's reservation changes. Readers see a change of several words whole, because
 * such changes are made by who is alone (image-lock.ts).
 */

/** Numbers, as doubles: sizes and offsets in bytes up to 2^53. */
const SIZE = 0;
const L1_TABLE_OFFSET = 1;
const L1_SIZE = 2;
const REFCOUNT_TABLE_OFFSET = 3;
const REFCOUNT_TABLE_CLUSTERS = 4;
const SNAPSHOTS_OFFSET = 5;
const NB_SNAPSHOTS = 6;
const FREE_HINT = 7;
const VIRGIN_FROM = 8;
const NEXT_VIEW = 9;
const SNAPSHOT_TABLE_SIZE = 10;
const PENDING_SIZE = 11;
const COMPRESSED_TAIL = 12;
const FLUSHES = 13;
const FLUSH_MILLISECONDS = 14;
const ALLOCATED = 15;
const NUMBERS = 16;

// Flags, as 32-bit integers.
const GENERATION = 0;
const UNFLUSHED = 1;
const FAILED = 2;
const DIRTY_BIT = 3;
const RUNS = 4;
const COPIED_OWED = 5;
const GATHERED = 6;
const COMPRESSED_EPOCH = 7;
const EDITS = 8;
const END_KNOWN = 9;
const FLAGS = 16;

/** Runs of freed clusters that may wait at once for the flush that lets them go. */
export const MAX_FREED_RUNS = 8192;
/** Snapshots that an image can have. */
const MAX_VIEWS = 65536;

export interface ImageStateMemory {
  readonly numbers: SharedArrayBuffer;
  readonly flags: SharedArrayBuffer;
  readonly runs: SharedArrayBuffer;
  readonly views: SharedArrayBuffer;
}

export interface InitialState {
  readonly size: number;
  readonly l1TableOffset: number;
  readonly l1Size: number;
  readonly refcountTableOffset: number;
  readonly refcountTableClusters: number;
  readonly snapshotsOffset: number;
  readonly nbSnapshots: number;
  readonly snapshotTableSize: number;
  /** Index of the first cluster behind the file's end; Infinity where there is none. */
  readonly virginFrom: number;
  readonly dirty: boolean;
  /** Where it was open before, and the table of snapshots is the same. */
  readonly views?: KeptViews | undefined;
}

/** What writing has cost since the image was opened. */
export interface WriteTotals {
  /** Flushes of its files, and how long they took. */
  readonly flushes: number;
  readonly flushMilliseconds: number;
  /** Bytes of host clusters that were allocated. */
  readonly allocated: number;
}

/** The views of an image's snapshots. */
export interface KeptViews {
  /** In the order of the table. */
  readonly views: Int32Array;
  /** The first that no snapshot has had. */
  readonly next: number;
}

export function allocateImageState(initial: InitialState): ImageStateMemory {
  const memory = {
    numbers: new SharedArrayBuffer(NUMBERS * 8),
    flags: new SharedArrayBuffer(FLAGS * 4),
    runs: new SharedArrayBuffer(MAX_FREED_RUNS * 2 * 8),
    views: new SharedArrayBuffer(MAX_VIEWS * 4),
  };
  const state = new ImageState(memory);
  const { views: kept, ...rest } = initial;
  Object.assign(state, rest);
  const views = new Int32Array(memory.views);
  if (kept !== undefined) views.set(kept.views);
  else for (let index = 0; index < initial.nbSnapshots; index++) views[index] = index + 1;
  state.nextView = kept?.next ?? initial.nbSnapshots + 1;
  return memory;
}

export class ImageState {
  readonly #numbers: Float64Array;
  readonly #flags: Int32Array;
  readonly #runs: Float64Array;
  readonly #views: Int32Array;

  constructor(memory: ImageStateMemory) {
    this.#numbers = new Float64Array(memory.numbers);
    this.#flags = new Int32Array(memory.flags);
    this.#runs = new Float64Array(memory.runs);
    this.#views = new Int32Array(memory.views);
  }

  /** Bytes of the guest's disk. */
  get size(): number {
    return this.#numbers[SIZE]!;
  }
  set size(value: number) {
    this.#numbers[SIZE] = value;
  }

  get l1TableOffset(): number {
    return this.#numbers[L1_TABLE_OFFSET]!;
  }
  set l1TableOffset(value: number) {
    this.#numbers[L1_TABLE_OFFSET] = value;
  }

  /** Entries. */
  get l1Size(): number {
    return this.#numbers[L1_SIZE]!;
  }
  set l1Size(value: number) {
    this.#numbers[L1_SIZE] = value;
  }

  get refcountTableOffset(): number {
    return this.#numbers[REFCOUNT_TABLE_OFFSET]!;
  }
  set refcountTableOffset(value: number) {
    this.#numbers[REFCOUNT_TABLE_OFFSET] = value;
  }

  get refcountTableClusters(): number {
    return this.#numbers[REFCOUNT_TABLE_CLUSTERS]!;
  }
  set refcountTableClusters(value: number) {
    this.#numbers[REFCOUNT_TABLE_CLUSTERS] = value;
  }

  get snapshotsOffset(): number {
    return this.#numbers[SNAPSHOTS_OFFSET]!;
  }
  set snapshotsOffset(value: number) {
    this.#numbers[SNAPSHOTS_OFFSET] = value;
  }

  get nbSnapshots(): number {
    return this.#numbers[NB_SNAPSHOTS]!;
  }
  set nbSnapshots(value: number) {
    this.#numbers[NB_SNAPSHOTS] = value;
  }

  /** Bytes of the snapshot table. */
  get snapshotTableSize(): number {
    return this.#numbers[SNAPSHOT_TABLE_SIZE]!;
  }
  set snapshotTableSize(value: number) {
    this.#numbers[SNAPSHOT_TABLE_SIZE] = value;
  }

  /** No cluster below this index is free. */
  get freeHint(): number {
    return this.#numbers[FREE_HINT]!;
  }
  set freeHint(value: number) {
    this.#numbers[FREE_HINT] = value;
  }

  /** Clusters from this index on were never written: they read as zeroes. */
  get virginFrom(): number {
    return this.#numbers[VIRGIN_FROM]!;
  }
  set virginFrom(value: number) {
    this.#numbers[VIRGIN_FROM] = value;
  }

  /** Grows with every change of the snapshots or of the disk's size. */
  get generation(): number {
    return Atomics.load(this.#flags, GENERATION);
  }
  bumpGeneration(): void {
    Atomics.add(this.#flags, GENERATION, 1);
  }

  /** Grows whenever tables may have changed. */
  get edits(): number {
    return Atomics.load(this.#flags, EDITS);
  }
  bumpEdits(): void {
    Atomics.add(this.#flags, EDITS, 1);
  }

  /** Whether the file was written to since the last flush. */
  get unflushed(): boolean {
    return Atomics.load(this.#flags, UNFLUSHED) !== 0;
  }
  set unflushed(value: boolean) {
    Atomics.store(this.#flags, UNFLUSHED, value ? 1 : 0);
  }

  /** The errno that ended all writing; 0 where nothing did. Never cleared. */
  get failed(): number {
    return Atomics.load(this.#flags, FAILED);
  }
  fail(errno: number): void {
    Atomics.compareExchange(this.#flags, FAILED, 0, errno);
  }

  /** Whether the header's dirty bit is set. */
  get dirty(): boolean {
    return this.#flags[DIRTY_BIT] !== 0;
  }
  set dirty(value: boolean) {
    this.#flags[DIRTY_BIT] = value ? 1 : 0;
  }

  /** Whether COPIED flags may contradict the counts: what sets them anew was not finished. */
  get copiedOwed(): boolean {
    return this.#flags[COPIED_OWED] !== 0;
  }
  set copiedOwed(value: boolean) {
    this.#flags[COPIED_OWED] = value ? 1 : 0;
  }

  /** The size that the header is to have with the next flush: the disk grew. 0 for none. */
  get pendingSize(): number {
    return this.#numbers[PENDING_SIZE]!;
  }
  set pendingSize(value: number) {
    this.#numbers[PENDING_SIZE] = value;
  }

  /** Where the next compressed data goes, in a host cluster that has some; 0: in a new one. */
  get compressedTail(): number {
    return this.#numbers[COMPRESSED_TAIL]!;
  }
  set compressedTail(value: number) {
    this.#numbers[COMPRESSED_TAIL] = value;
  }

  /** Grows where compressed data comes to a place at which there may have been other. */
  get compressedEpoch(): number {
    return Atomics.load(this.#flags, COMPRESSED_EPOCH);
  }
  bumpCompressedEpoch(): void {
    Atomics.add(this.#flags, COMPRESSED_EPOCH, 1);
  }

  /** Whether the places of all metadata are known to the overlap guard. */
  get gathered(): boolean {
    return Atomics.load(this.#flags, GATHERED) !== 0;
  }
  set gathered(value: boolean) {
    Atomics.store(this.#flags, GATHERED, value ? 1 : 0);
  }

  /** Whether it is known that no table names anything behind the file's end. */
  get endKnown(): boolean {
    return Atomics.load(this.#flags, END_KNOWN) !== 0;
  }
  set endKnown(value: boolean) {
    Atomics.store(this.#flags, END_KNOWN, value ? 1 : 0);
  }

  /** A flush of one of its files took so long. */
  countFlush(milliseconds: number): void {
    this.#numbers[FLUSHES]!++;
    this.#numbers[FLUSH_MILLISECONDS]! += milliseconds;
  }

  countAllocated(bytes: number): void {
    this.#numbers[ALLOCATED]! += bytes;
  }

  get totals(): WriteTotals {
    const numbers = this.#numbers;
    const [flushes, flushMilliseconds] = [numbers[FLUSHES]!, numbers[FLUSH_MILLISECONDS]!];
    return { flushes, flushMilliseconds, allocated: numbers[ALLOCATED]! };
  }

  get freedRuns(): number {
    return this.#flags[RUNS]!;
  }

  /** Notes that `count` clusters from `first` on lost a reference. False where there is no room. */
  addFreedRun(first: number, count: number): boolean {
    const runs = this.#runs;
    const used = this.freedRuns;
    const last = (used - 1) * 2;
    if (used > 0 && runs[last]! + runs[last + 1]! === first) {
      runs[last + 1]! += count;
      return true;
    }
    if (used === MAX_FREED_RUNS) return false;
    runs[used * 2] = first;
    runs[used * 2 + 1] = count;
    this.#flags[RUNS] = used + 1;
    return true;
  }

  freedRun(index: number): { first: number; count: number } {
    return { first: this.#runs[index * 2]!, count: this.#runs[index * 2 + 1]! };
  }

  /** Forgets the first `count` runs. */
  dropFreedRuns(count: number): void {
    this.#runs.copyWithin(0, count * 2, this.freedRuns * 2);
    this.#flags[RUNS] = this.freedRuns - count;
  }

  /** The view number of the snapshot at `index` of the table. */
  viewAt(index: number): number {
    return this.#views[index]!;
  }

  /** The place in the table of a view's snapshot; -1 where it is gone. */
  indexOfView(view: number): number {
    return this.#views.subarray(0, this.nbSnapshots).indexOf(view);
  }

  keptViews(): KeptViews {
    return { views: this.#views.slice(0, this.nbSnapshots), next: this.nextView };
  }

  get nextView(): number {
    return this.#numbers[NEXT_VIEW]!;
  }
  set nextView(value: number) {
    this.#numbers[NEXT_VIEW] = value;
  }

  /** The table got another entry at its end. */
  appendView(): void {
    this.#views[this.nbSnapshots] = this.nextView++;
    this.nbSnapshots++;
  }

  /** The entry at `index` left the table. */
  removeView(index: number): void {
    this.#views.copyWithin(index, index + 1, this.nbSnapshots);
    this.nbSnapshots--;
  }
}
