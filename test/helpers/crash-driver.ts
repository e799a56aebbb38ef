/**
 * Uses an image as a guest would, and writes into the recording what it did: the only thing that a
 * workload has to do with.
 */
import { describeError, ImageError, isExpected } from '#src/errors.js';
import type { ImageWriter, Preallocation } from '#src/image/writer.js';
import { compressCluster } from '#src/image/qcow2/compression.js';
import { isUsable } from '#src/image/qcow2/bitmaps.js';
import type { Qcow2Writer } from '#src/image/qcow2/writer.js';
import type { AmendRequest } from '#src/tools/amend.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import {
  type DiskState,
  type SnapshotState,
  withSectors,
  withSize,
  withSnapshots,
} from './disk-history.js';
import type { Random } from './random.js';
import type { RecordingStorage } from './recording-storage.js';
import { markSectors, SECTOR_SIZE, vmStateGeneration, ZEROES } from './sector-marks.js';

/** The calls that workloads make, so that stand-ins for the writer can be tried. */
export type WriterCalls = Pick<ImageWriter, 'write' | 'flush'> & Partial<ImageWriter>;

/** Amends the image. Answers the writer to go on with, and what was thrown. */
export type Amend = (request: AmendRequest | 'compact') => { writer: WriterCalls; error: unknown };

export class CrashDriver {
  /** What the disk is now, as the guest sees it. */
  state: DiskState;
  readonly clusterSectors: number;
  /** What lies below the disk. */
  below: Int32Array = new Int32Array(0);
  /** Calls that the image refused. */
  readonly refused: string[] = [];
  #writer: WriterCalls;
  readonly #amend: Amend;
  readonly #storage: RecordingStorage;
  /** The writer's number of the snapshot that is at `index` of the table. */
  readonly #viewAt: (index: number) => number;
  readonly #compressionType: number;
  #generation: number;

  constructor(
    writer: WriterCalls,
    storage: RecordingStorage,
    before: DiskState,
    clusterSize: number,
    viewAt: (index: number) => number = (index) => index,
    compressionType = 0,
    amend: Amend = () => ({ writer, error: undefined }),
  ) {
    this.#amend = amend;
    this.#compressionType = compressionType;
    this.#writer = writer;
    this.#viewAt = viewAt;
    this.#storage = storage;
    this.state = before;
    this.clusterSectors = Math.max(1, clusterSize / SECTOR_SIZE);
    this.#generation = 1 + before.sectors.reduce((most, value) => Math.max(most, value), 1);
  }

  /** Sectors of the disk. */
  get size(): number {
    return this.state.sectors.length;
  }

  write(first: number, count: number): void {
    const generation = this.#generation++;
    const buffer = new IoBuffer(count * SECTOR_SIZE);
    markSectors(first, count, generation).copy(buffer.bytes);
    this.#fill(`write ${first}+${count}`, first, count, generation);
    this.#writer.write(first * SECTOR_SIZE, count * SECTOR_SIZE, buffer, 0);
  }

  /** Refused where the cluster has something. */
  writeCompressed(cluster: number): void {
    const first = cluster * this.clusterSectors;
    const count = Math.min(this.clusterSectors, this.size - first);
    const generation = this.#generation++;
    const size = this.clusterSectors * SECTOR_SIZE;
    const bytes = markSectors(first, count, generation);
    const packed = compressCluster(this.#compressionType, bytes, size)!;
    const values = new Int32Array(count).fill(generation);
    this.#try(`compressed ${first}+${count}`, withSectors(this.state, first, values), () =>
      this.#writer.writeCompressed!(first * SECTOR_SIZE, packed, packed.length),
    );
  }

  discard(first: number, count: number): void {
    this.#fill(`discard ${first}+${count}`, first, count, ZEROES);
    this.#writer.discard!(first * SECTOR_SIZE, count * SECTOR_SIZE);
  }

  zero(first: number, count: number): void {
    this.#fill(`zero ${first}+${count}`, first, count, ZEROES);
    this.#writer.zero!(first * SECTOR_SIZE, count * SECTOR_SIZE);
  }

  /** By entries alone: whole clusters. Refused where none can say it; nothing is changed then. */
  markZero(cluster: number, count: number, unmap: boolean): void {
    const [first, sectors] = this.#clusters(cluster, count);
    const values = new Int32Array(sectors).fill(ZEROES);
    this.#try(`mark ${first}+${sectors}`, withSectors(this.state, first, values), () => {
      const range = [first * SECTOR_SIZE, sectors * SECTOR_SIZE] as const;
      if (this.#writer.markZero!(...range, unmap)) return;
      throw new ImageError('unsupported', 'ENOTSUP', 'no entry says it');
    });
  }

  /** Whole clusters, of an image with nothing below, or of version 3. */
  discardClusters(cluster: number, count: number): void {
    const [first, sectors] = this.#clusters(cluster, count);
    this.#fill(`let go of ${first}+${sectors}`, first, sectors, ZEROES);
    this.#writer.discardClusters!(first * SECTOR_SIZE, sectors * SECTOR_SIZE);
  }

  /** The first sector of a run of clusters, and how many there are on the disk. */
  #clusters(cluster: number, count: number): [number, number] {
    const first = cluster * this.clusterSectors;
    return [first, Math.min(count * this.clusterSectors, this.size - first)];
  }

  /** Changes nothing that is read. */
  preallocate(first: number, count: number): void {
    this.#writer.preallocate!(first * SECTOR_SIZE, count * SECTOR_SIZE);
  }

  resize(sectors: number, preallocation: Preallocation = 'off'): void {
    this.#try(`resize ${sectors} ${preallocation}`, withSize(this.state, sectors), () =>
      this.#writer.resize!(sectors * SECTOR_SIZE, preallocation),
    );
  }

  /** The disk reads as what lies below it. */
  makeEmpty(): void {
    const sectors = new Int32Array(this.size).fill(ZEROES);
    sectors.set(this.below.subarray(0, this.size));
    this.#change('empty', withSectors(this.state, 0, sectors));
    this.#writer.makeEmpty!();
    this.#acknowledge();
  }

  createSnapshot(name: string): void {
    const { sectors, snapshots, changes } = this.state;
    const taken: SnapshotState = { name, sectors, takenAt: changes };
    this.#try(`snapshot ${name}`, withSnapshots(this.state, [...snapshots, taken]), () =>
      this.#writer.createSnapshot!(name),
    );
  }

  /** One with VM state of so many sectors, whose generation follows from that. */
  saveVm(name: string, sectors: number): void {
    const { sectors: disk, snapshots, changes } = this.state;
    const taken: SnapshotState = { name, sectors: disk, takenAt: changes };
    const bytes = markSectors(0, sectors, vmStateGeneration(sectors));
    const vmState = {
      size: bytes.length,
      read: (offset: number, length: number, target: IoBuffer, at: number) => {
        bytes.copy(target.bytes, at, offset, offset + length);
      },
    };
    this.#try(`save ${name}`, withSnapshots(this.state, [...snapshots, taken]), () =>
      this.#writer.createSnapshot!(name, { vmState }),
    );
  }

  deleteSnapshot(index: number): void {
    const { snapshots } = this.state;
    const left = snapshots.filter((_, at) => at !== index);
    this.#try(`delete ${snapshots[index]!.name}`, withSnapshots(this.state, left), () =>
      this.#writer.deleteSnapshot!(this.#viewAt(index)),
    );
  }

  renameSnapshot(index: number, name: string): void {
    const { snapshots } = this.state;
    const renamed = snapshots.map((one, at) => (at === index ? { ...one, name } : one));
    this.#try(`rename to ${name}`, withSnapshots(this.state, renamed), () =>
      this.#writer.renameSnapshot!(this.#viewAt(index), name),
    );
  }

  revertTo(index: number): void {
    const { sectors, name } = this.state.snapshots[index]!;
    const sized = withSize(this.state, sectors.length);
    this.#try(`revert to ${name}`, withSectors(sized, 0, sectors), () =>
      this.#writer.revertTo!(this.#viewAt(index)),
    );
  }

  /** Changes the image and not what is read; what was refused may be done in part. */
  amend(request: AmendRequest): void {
    const label = `amend ${JSON.stringify(request)}`;
    this.flushAll();
    this.#try(label, this.state, () => {
      const { writer, error } = this.#amend(request);
      this.#writer = writer;
      if (error !== undefined) throw error;
    });
    this.#acknowledge();
  }

  /** Changes where things lie, and not what is read. */
  compact(): void {
    this.close();
    const { writer, error } = this.#amend('compact');
    this.#writer = writer;
    if (error !== undefined) throw error;
    this.#acknowledge();
  }

  flush(): void {
    this.#writer.flush();
    this.#acknowledge();
  }

  flushAll(): void {
    this.#writer.flushAll!();
    this.#acknowledge();
  }

  /** As at the end of a command: bitmaps are saved. */
  close(): void {
    this.#writer.close!();
    this.#acknowledge();
  }

  /** Bitmaps come and go, disabled ones; of a closed image. */
  editBitmaps(random: Random): void {
    this.close();
    const editor = (this.#writer as unknown as Qcow2Writer).bitmaps();
    // An image that has crashed may have bitmaps of an earlier run, and some that cannot be used.
    const usable = editor.drafts.filter(({ listed }) => listed === null || isUsable(listed.bitmap));
    const others = usable.filter(({ enabled }) => !enabled);
    const granularity = 512 << random.below(4);
    const names = editor.drafts.map(({ name }) => name);
    while (names.includes(`b${this.#generation}`)) this.#generation++;
    const added = editor.add(`b${this.#generation++}`, granularity, false);
    const on = usable.find(({ name }) => name === 'on');
    if (random.chance(0.7) && on !== undefined) editor.merge(added, editor.sourcesOf(on));
    if (others.length > 0) {
      const other = random.pick(others);
      const change = random.below(3);
      if (change === 0) editor.clear(other);
      else if (change === 1) editor.merge(other, editor.sourcesOf(added));
      else editor.remove(other);
    }
    editor.store();
    this.#acknowledge();
  }

  /** The image may refuse; its disk is as it was, then. */
  #try(label: string, after: DiskState, call: () => void): void {
    const before = this.state;
    this.#change(label, after);
    try {
      call();
    } catch (error) {
      if (!isExpected(error)) throw error;
      this.refused.push(`${label}: ${describeError(error)}`);
      this.#change(`${label} refused`, before);
    }
  }

  #acknowledge(): void {
    this.#storage.note({ kind: 'acknowledged', state: this.state });
  }

  #fill(label: string, first: number, count: number, generation: number): void {
    const values = new Int32Array(count).fill(generation);
    this.#change(label, withSectors(this.state, first, values));
  }

  #change(label: string, after: DiskState): void {
    this.state = after;
    this.#storage.note({ kind: 'change', label, after });
  }
}
