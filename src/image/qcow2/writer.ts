/** A qcow2 image that is open for writing, in one thread: the locks, and who does what behind them. */
import { alignDown, alignUp } from '../../codec/bits.js';
import { ERRNO, errnoOf, ImageError, isExpected } from '../../errors.js';
import type { ImageLock } from '../../shared/image-lock.js';
import type { ImageState } from '../../shared/image-state.js';
import type { SliceCache } from '../../shared/slice-cache.js';
import type { MutableStorage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Disk } from '../disk.js';
import type { WriteMemory } from '../memory.js';
import { type WriteOptions, writesThrough } from '../write-options.js';
import { runSteps, type Steps } from '../steps.js';
import { refuseAfterFailure, StickyFlush } from '../sticky-flush.js';
import type {
  BackingName,
  ByteRange,
  ImageWriter,
  Preallocation,
  SnapshotOptions,
  VmStateSource,
} from '../writer.js';
import { SECTOR_SIZE } from '../extent.js';
import { isZero } from '../zeroes.js';
import { Allocator } from './allocator.js';
import { Amender } from './amender.js';
import { BitmapEditor, refuseUnusable } from './bitmap-editor.js';
import { type BitmapKeeper, keeperOf } from './bitmap-keeper.js';
import { BitmapStore, placeOf } from './bitmap-store.js';
import { type Bitmap, hasBitmaps } from './bitmaps.js';
import { CompressedWriter } from './compressed-write.js';
import { DataFile } from './data-file.js';
import { DirtyBit } from './dirty-bit.js';

import { Zeroer } from './discard.js';
import { hasBit } from './features.js';
import { GuestData } from './guest-data.js';
import { Flusher } from './flush.js';
import type { Qcow2Header } from './header.js';
import { changeBackingFile } from './header-rewrite.js';
import { L2Tables } from './l2-tables.js';
import { AUTOCLEAR, COMPATIBLE } from './layout.js';
import type { LayerCipher } from './mapping.js';
import { OverlapGuard } from './overlap.js';
import { RefcountWidth } from './refcount-width.js';
import { Refcounts } from './refcount.js';
import { Preallocator } from './preallocate.js';
import { Resizer } from './resize.js';
import { SharedReferences } from './shared-references.js';
import { SnapshotEditor } from './snapshot-edit.js';
import { checkName } from './snapshot-table.js';
import type { Snapshot } from './snapshots.js';
import { type Place, Tables } from './tables.js';
import { VmStateArea } from './vm-state.js';
import { ClusterWriter } from './write.js';
import { ZeroExpander } from './zero-expansion.js';
import { ZeroMarker } from './zero-marks.js';

const ZEROES_SIZE = 1 << 20;

export interface Qcow2WriterInput {
  readonly header: Qcow2Header;
  /** The bitmaps, as the image was opened. */
  readonly bitmaps: readonly Bitmap[];
  readonly storage: MutableStorage;
  /** What guest clusters are encrypted with. */
  readonly cipher: LayerCipher | null;
  /** The external data file; null where there is none. */
  readonly dataStorage: MutableStorage | null;
  readonly cache: SliceCache;
  readonly memory: WriteMemory;
  readonly lock: ImageLock;
  readonly state: ImageState;
  /** The active disk, with what lies below it. */
  readonly disk: Disk;
  /** All that the active L1 table maps, the VM state behind the disk too, and nothing below. */
  readonly whole: Disk;
  /** The snapshots as they are now, in the table's order. */
  readonly snapshots: () => readonly Snapshot[];
}

function isRaw({ autoclearFeatures }: Qcow2Header): boolean {
  return hasBit(autoclearFeatures, AUTOCLEAR.DATA_FILE_RAW);
}

/** Not longer than the file: its length is for nobody to trust. */
function cryptoHeaderOf({ extensions }: Qcow2Header, storage: MutableStorage): Place {
  const { offset, length } = extensions.cryptoHeader ?? { offset: 0, length: 0 };
  return { offset, size: Math.max(0, Math.min(length, storage.size() - offset)) };
}

export class Qcow2Writer implements ImageWriter {
  /** What amending an image changes; made where it is asked for. */
  readonly amender: () => Amender;
  /** The image's bitmaps, to be edited: as they are when it is called. */
  readonly bitmaps: () => BitmapEditor;
  readonly #input: Qcow2WriterInput;
  readonly #state: ImageState;
  readonly #lock: ImageLock;
  readonly #options: WriteOptions;
  readonly #lazy: boolean;
  readonly #guard: OverlapGuard;
  readonly #dirtyBit: DirtyBit;
  readonly #flusher: Flusher;
  readonly #clusters: ClusterWriter;
  readonly #compressed: CompressedWriter;
  readonly #zeroer: Zeroer;
  readonly #marker: ZeroMarker;
  readonly #resizer: Resizer;
  readonly #snapshots: SnapshotEditor;
  readonly #tables: Tables;
  readonly #data: GuestData;
  readonly #l2: L2Tables;
  readonly #allocator: Allocator;
  /** Null where there are no bitmaps. */
  readonly #keeper: BitmapKeeper | null;
  #vmStateArea: VmStateArea | undefined;
  readonly #zeroes = new IoBuffer(ZEROES_SIZE);

  constructor(input: Qcow2WriterInput) {
    const { header, cache, memory, lock, state, disk } = input;
    const storage = new StickyFlush(input.storage, state, memory.options.cache === 'unsafe');
    const { geometry } = header;
    this.#input = input;
    this.#state = state;
    this.#lock = lock;
    this.#options = memory.options;
    this.#lazy =
      geometry.version >= 3 &&
      (memory.options.lazyRefcounts ??
        hasBit(header.compatibleFeatures, COMPATIBLE.LAZY_REFCOUNTS));
    const punch = memory.options.discard === 'unmap';
    const tables = new Tables(geometry, storage, cache, state, this.#zeroes, this.#dataFile(punch));
    tables.cryptoHeader = cryptoHeaderOf(header, storage);
    tables.bitmapDirectory = placeOf(header.extensions.bitmaps);
    const guestData = new GuestData(tables, input.cipher);
    this.#data = guestData;
    this.#dirtyBit = new DirtyBit(storage, state, header);
    const inactive = () =>
      input.snapshots().map((one) => ({ offset: one.l1TableOffset, size: one.l1Size * 8 }));
    const mark = () => this.#dirtyBit.markCorrupt();
    this.#guard = new OverlapGuard(tables, memory.metadata, mark, inactive, memory.clusterLimit);
    const refcounts = new Refcounts(tables, this.#guard, memory.clusterLimit);
    const allocator = new Allocator(tables, refcounts, this.#guard, punch);
    const l2 = new L2Tables(tables, allocator, this.#guard);
    this.#tables = tables;
    this.#l2 = l2;
    this.#allocator = allocator;
    this.#flusher = new Flusher(tables, allocator, this.#dirtyBit, lock, this.#lazy);
    tables.makeRoom = () => this.#flusher.flushCounts();
    if (this.#lazy) tables.countsTables = () => this.#flusher.writeCounts();
    this.#clusters = new ClusterWriter(tables, l2, allocator, this.#guard, disk, guestData);
    this.#compressed = new CompressedWriter(tables, l2, allocator, this.#guard);
    this.#zeroer = new Zeroer(tables, l2, allocator, this.#clusters, disk, this.#zeroes);
    this.#marker = new ZeroMarker(tables, l2, disk);
    const preallocator = new Preallocator(tables, l2, allocator, this.#zeroes);
    const parts = [tables, l2, allocator, this.#flusher, this.#zeroer, preallocator] as const;
    this.#resizer = new Resizer(...parts, guestData);
    const references = new SharedReferences(tables, refcounts, allocator, l2);
    this.#snapshots = new SnapshotEditor(
      tables,
      refcounts,
      allocator,
      references,
      this.#flusher,
      this.#dirtyBit,
      this.#guard,
    );
    const store = new BitmapStore(tables, allocator, this.#flusher);
    const kept = { changes: memory.changes, opened: input.bitmaps };
    this.#keeper = keeperOf(kept, tables, store, this.#flusher);
    this.bitmaps = () => new BitmapEditor(tables, store, (body) => this.#alone(body));
    this.amender = () =>
      new Amender({
        zeroes: new ZeroExpander(
          ...[
            tables,
            guestData,
            refcounts,
            allocator,
            references,
            this.#guard,
            this.#flusher,
            this.#dirtyBit,
          ],
        ),
        width: new RefcountWidth(tables, allocator, this.#flusher, punch),
        snapshotEditor: this.#snapshots,
        snapshots: input.snapshots,
        alone: (steps) => this.#stepsAlone(steps),
      });
  }

  #dataFile(punches: boolean): DataFile | null {
    const { dataStorage, header, memory } = this.#input;
    if (dataStorage === null) return null;
    const unsafe = memory.options.cache === 'unsafe';
    const storage = new StickyFlush(dataStorage, this.#state, unsafe);
    // Nobody reads the disk in a file that is encrypted.
    const raw = isRaw(header) && this.#input.cipher === null;
    return new DataFile(storage, this.#state, raw, punches);
  }

  /** As QEMU: what is not counted cannot be shared. `raw`: only where the data file is the disk. */
  #refuseDataFile(what: string, raw = false): void {
    const { data, storage } = this.#tables;
    if (data === null || (raw && !isRaw(this.#input.header))) return;
    throw new ImageError('unsupported', 'ENOTSUP', `${storage.name}: ${what}`, {
      limit: 'it has an external data file',
    });
  }

  write(offset: number, length: number, source: IoBuffer, at: number): void {
    this.#checkAlive();
    const { detectZeroes } = this.#options;
    if (detectZeroes !== 'off' && isZero(source, at, length)) {
      this.#change(offset, length, () => this.#zeroer.zero(offset, length, detectZeroes === 'on'));
      return;
    }
    if (!this.#state.gathered) this.#reserved(() => {});
    if (this.#keeper !== null) this.#mark(this.#keeper, offset, length);
    const done = this.#isSharable(offset, length)
      ? this.#writeInPlace(offset, length, source, at)
      : 0;
    if (done < length) {
      this.#change(offset, length, () =>
        this.#clusters.write(offset + done, length - done, source, at + done),
      );
    } else this.#through();
  }

  writeCompressed(offset: number, data: Uint8Array, length: number): void {
    this.#checkAlive();
    this.#refuseDataFile('no compressed data');
    if (this.#data.encrypted) {
      const message = 'Compression and encryption not supported at the same time';
      throw new ImageError('unsupported', 'ENOTSUP', message);
    }
    const covered = Math.min(
      this.#input.header.geometry.clusterSize,
      Math.max(1, this.#state.size - offset),
    );
    this.#change(offset, covered, () => this.#compressed.write(offset, data, length));
  }

  discard(offset: number, length: number): void {
    this.#change(offset, length, () => this.#zeroer.zero(offset, length, false));
  }

  zero(offset: number, length: number): void {
    this.#change(offset, length, () => this.#zeroer.zero(offset, length, true));
  }

  markZero(offset: number, length: number, unmap: boolean, changed?: ByteRange): boolean {
    let marked = true;
    const zero = () => {
      // Nothing is read there but what the file has.
      if (this.#tables.data?.raw === true) this.#zeroer.zero(offset, length, !unmap);
      else marked = this.#marker.zero(offset, length, unmap);
    };
    this.#change(offset, length, zero, changed);
    return marked;
  }

  discardClusters(offset: number, length: number): void {
    this.#change(offset, length, () => {
      if (this.#tables.data?.raw !== true) this.#marker.discard(offset, length);
      else this.#zeroWholeClusters(offset, offset + length);
    });
  }

  #zeroWholeClusters(offset: number, end: number): void {
    const { clusterSize } = this.#input.header.geometry;
    const from = alignUp(offset, clusterSize);
    const to = end === this.#state.size ? end : alignDown(end, clusterSize);
    if (to > from) this.#zeroer.zero(from, to - from, false);
  }

  preallocate(offset: number, length: number): void {
    this.#change(offset, length, () => this.#zeroer.preallocate(offset, length), null);
  }

  resize(size: number, preallocation: Preallocation = 'off'): void {
    runSteps(this.resizeSteps(size, preallocation));
  }

  *resizeSteps(size: number, preallocation: Preallocation): Steps<void> {
    this.#input.bitmaps.forEach(refuseUnusable);
    yield* this.#stepsAlone(() => this.#resizeAlone(size, preallocation));
    this.#through();
  }

  *#resizeAlone(size: number, preallocation: Preallocation): Steps<void> {
    const before = this.#state.size;
    this.#keeper?.hold('all');
    yield* this.#resizer.resize(size, preallocation);
    this.#keeper?.resize(before, size);
  }

  makeEmpty(): void {
    this.#alone(() => this.#resizer.empty());
  }

  changeBackingFile(backing: BackingName | null): void {
    if (backing !== null && isRaw(this.#input.header)) {
      const message = `${this.#tables.storage.name}: no backing file`;
      throw new ImageError('invalid', 'EINVAL', message, { limit: 'its data file is raw' });
    }
    this.#alone(() => {
      this.#flusher.flushAll();
      changeBackingFile(this.#tables.storage, backing);
    });
  }

  flush(): void {
    this.#checkAlive();
    this.#lock.reserve();
    try {
      if (this.#flusher.needed) this.#flusher.flush();
      else this.#checkAlive();
    } finally {
      this.#lock.release();
    }
  }

  flushAll(): void {
    this.#checkAlive();
    if (this.#state.copiedOwed) this.#alone(() => this.#snapshots.settle());
    this.#lock.reserve();
    try {
      if (this.#flusher.needed || this.#dirtyBit.isSet) this.#flusher.flushAll();
    } finally {
      this.#lock.release();
    }
  }

  close(): void {
    const keeper = this.#keeper;
    try {
      if (keeper?.isHeld === true) this.#alone(() => keeper.save());
    } finally {
      this.flushAll();
    }
  }

  holdBitmaps(): void {
    this.#reserved(() => this.#keeper?.hold('all'));
  }

  writeVmState(offset: number, length: number, source: IoBuffer, at: number): void {
    this.#refuseDataFile('no VM state', true);
    this.#alone(() => this.#vmState.write(offset, length, source, at));
    this.#through();
  }

  createSnapshot(name: string, options: SnapshotOptions = {}): void {
    this.#refuseDataFile('no snapshots');
    this.#alone(() => {
      const { allowDuplicateName = false, vmState } = options;
      checkName(name, allowDuplicateName ? 0 : 1);
      if (!allowDuplicateName) this.#refuseTaken(name);
      if (vmState === undefined) this.#snapshots.create(name, this.#input.snapshots(), options);
      else this.#createWithVmState(name, options, vmState);
    });
  }

  /** The state is written behind the disk, the snapshot takes it, and the place is given back. */
  #createWithVmState(name: string, options: SnapshotOptions, vmState: VmStateSource): void {
    // What waits to be freed is room for it.
    this.#flusher.flushCounts();
    try {
      this.#vmState.fill(vmState);
      this.#snapshots.create(name, this.#input.snapshots(), options, vmState.size);
    } finally {
      this.#clearVmState();
    }
    this.#flusher.flushAll();
  }

  /** What cannot be given back stays taken, and is the next one's: nothing of the snapshot depends on it. */
  #clearVmState(): void {
    try {
      if (this.#state.failed === 0) this.#vmState.clear();
    } catch (error) {
      if (!isExpected(error)) throw error;
    }
  }

  /** Only who saves VM state needs it. */
  get #vmState(): VmStateArea {
    if (this.#vmStateArea === undefined) {
      const { whole } = this.#input;
      const clusters = new ClusterWriter(
        this.#tables,
        this.#l2,
        this.#allocator,
        this.#guard,
        whole,
        this.#data,
      );
      this.#vmStateArea = new VmStateArea(this.#tables, this.#resizer, clusters);
    }
    return this.#vmStateArea;
  }

  deleteSnapshot(view: number): void {
    this.#refuseDataFile('no snapshots');
    this.#alone(() => {
      const { index, snapshot } = this.#find(view);
      this.#snapshots.delete(index, snapshot);
    });
  }

  renameSnapshot(view: number, name: string): void {
    this.#alone(() => {
      const { index } = this.#find(view);
      this.#refuseTaken(name);
      this.#snapshots.rename(index, name);
    });
  }

  revertTo(view: number): void {
    this.#refuseDataFile('no snapshots');
    // As QEMU: what they say is of the disk that goes.
    if (this.#input.bitmaps.length > 0) throw hasBitmaps();
    this.#alone(() => {
      const { snapshot } = this.#find(view);
      this.#snapshots.revertTo(snapshot);
    });
  }

  /** Where the host has no room, that is for the slower way to say: it can make some. */
  #writeInPlace(offset: number, length: number, source: IoBuffer, at: number): number {
    try {
      return this.#clusters.writeInPlace(offset, length, source, at, this.#lock);
    } catch (error) {
      if (errnoOf(error) !== ERRNO.ENOSPC) throw error;
      return 0;
    }
  }

  /**
   * Changes clusters: `body` may be run twice. `changed`: where what is read changes, if not in all of the
   * range; null: nowhere. Where the host has no room, freed clusters that wait for a flush are given back
   * to it first.
   */
  #change(
    offset: number,
    length: number,
    body: () => void,
    changed: ByteRange | null = { offset, length },
  ): void {
    const run = (steps: () => void) =>
      this.#isSharable(offset, length) ? this.#reserved(steps) : this.#alone(steps);
    run(() => {
      this.#checkRange(offset, length);
      if (changed !== null) {
        this.#keeper?.hold('recording');
        this.#keeper?.mark(changed.offset, changed.length);
      }
      try {
        body();
      } catch (error) {
        if (errnoOf(error) !== ERRNO.ENOSPC || this.#state.freedRuns === 0) throw error;
        this.#flusher.flushCounts();
        body();
      }
    });
    this.#through();
  }

  /** Notes in the bitmaps that a range changes. Between looking and marking, nobody saves them. */
  #mark(keeper: BitmapKeeper, offset: number, length: number): void {
    for (;;) {
      this.#lock.enterShared();
      try {
        if (keeper.isHeld) {
          keeper.mark(offset, length);
          return;
        }
      } finally {
        this.#lock.leaveShared();
      }
      this.#reserved(() => keeper.hold('recording'));
    }
  }

  /** Whether others may write meanwhile: a part of an encrypted sector is read and written again. */
  #isSharable(offset: number, length: number): boolean {
    return !this.#data.encrypted || (offset % SECTOR_SIZE === 0 && length % SECTOR_SIZE === 0);
  }

  /** Somebody may have cut the disk since the range was looked at. */
  #checkRange(offset: number, length: number): void {
    const { size } = this.#state;
    if (offset + length <= size) return;
    throw new ImageError('invalid', 'EINVAL', `${length} bytes at ${offset} are not on the disk`, {
      limit: `${size} bytes`,
    });
  }

  /** `cache=writethrough` and `directsync`: what was changed is durable before it is answered. */
  #through(): void {
    if (writesThrough(this.#options.cache)) this.flush();
  }

  #find(view: number): { index: number; snapshot: Snapshot } {
    const index = this.#state.indexOfView(view);
    const snapshot = index < 0 ? undefined : this.#input.snapshots()[index];
    if (snapshot === undefined) throw new ImageError('missing', 'ENOENT', 'no such snapshot');
    return { index, snapshot };
  }

  #refuseTaken(name: string): void {
    if (!this.#input.snapshots().some((other) => other.name === name)) return;
    throw new ImageError('invalid', 'EEXIST', `there is a snapshot '${name}' already`);
  }

  /** Runs `body` with the image's reservation: it may change metadata. */
  #reserved(body: () => void): void {
    this.#lock.reserve();
    try {
      this.#prepare();
      body();
    } finally {
      this.#state.bumpEdits();
      this.#lock.release();
    }
  }

  /** The same, while nobody reads or writes. */
  #alone(body: () => void): void {
    this.#reserved(() => {
      this.#lock.beAlone();
      try {
        body();
      } finally {
        this.#lock.letIn();
      }
    });
  }

  /** The same, step by step. */
  *#stepsAlone(steps: () => Steps<void>): Steps<void> {
    this.#lock.reserve();
    try {
      this.#prepare();
      this.#lock.beAlone();
      try {
        yield* steps();
      } finally {
        this.#lock.letIn();
      }
    } finally {
      this.#state.bumpEdits();
      this.#lock.release();
    }
  }

  /** Before metadata changes. */
  #prepare(): void {
    this.#checkAlive();
    if (!this.#state.gathered) {
      this.#guard.gather();
      this.#state.gathered = true;
    }
    if (this.#lazy) this.#dirtyBit.set();
  }

  #checkAlive(): void {
    refuseAfterFailure(this.#state, this.#input.storage.name);
  }
}
