/** An image in memory for tests of the mount: a disk, two snapshots, and a writer that tells. */
import { expect } from 'chai';
import type { Disk } from '#src/image/disk.js';
import type { Snapshot } from '#src/image/qcow2/snapshots.js';
import type { ImageWriter } from '#src/image/writer.js';
import { allocateImageCounters, ImageCounters, imageTotals } from '#src/shared/image-counters.js';
import type { IoBuffer } from '#src/sys/io-buffer.js';

export const KIB = 1024;
/** Where the disk's partition begins. */
export const START = 64 * KIB;

export type Call = readonly [name: string, ...args: unknown[]];

/** A disk in memory of 256 KiB with a partition from 64 to 128 KiB, and its writer, which tells. */
export class FakeImage {
  bytes = Buffer.alloc(256 * KIB);
  generation = 0;
  entered = 0;
  readonly calls: Call[] = [];
  readonly #counters = allocateImageCounters(1);
  readonly counters = new ImageCounters(this.#counters, 1);
  views = [
    { view: 1, snapshot: snapshotNamed('1', 'one') },
    { view: 2, snapshot: snapshotNamed('2', 'a/b') },
  ];
  failure: Error | undefined;
  readonly description = {
    writable: true,
    layers: [
      {
        ...{ format: 'qcow2', file: { path: 'vm', fd: 0 }, dataFile: null },
        ...{ header: HEADER, bitmaps: [] },
      },
    ],
  };
  readonly disk = fakeDisk(this);
  readonly writer = fakeWriter(this);

  constructor() {
    this.putPartition(START, 64 * KIB);
  }

  putPartition(start: number, size: number): void {
    this.bytes.fill(0, 0, 512);
    this.bytes[446 + 4] = 0x83;
    this.bytes.writeUInt32LE(start / 512, 446 + 8);
    this.bytes.writeUInt32LE(size / 512, 446 + 12);
    this.bytes.writeUInt16LE(0xaa55, 510);
  }

  enter = () => void this.entered++;
  leave = () => void this.entered--;
  snapshots = () => this.views;
  snapshotDisk = () => this.disk;
  vmState = () => this.disk;
  totals = () => ({
    ...imageTotals(this.#counters),
    ...{ flushes: 0, flushMilliseconds: 0, allocated: 0 },
  });
}

function fakeDisk(image: FakeImage): Disk {
  return {
    get size() {
      return image.bytes.length;
    },
    backing: null,
    read: (offset: number, length: number, target: IoBuffer, at: number) => {
      if (image.entered !== 1) throw new Error('read from outside');
      image.bytes.copy(target.bytes, at, offset, offset + length);
    },
    seek: (offset: number, hole: boolean, end = image.bytes.length) => (hole ? end : offset),
    allocatedWithin: () => 0,
  } as unknown as Disk;
}

/** Each call is noted, and must come from outside of the image. */
function fakeWriter(image: FakeImage): ImageWriter {
  const noting =
    <A extends unknown[]>(name: string, act: (...args: A) => void, shown = (args: A) => args) =>
    (...args: A): void => {
      expect(image.entered, `within, at ${name}`).to.equal(0);
      image.calls.push([name, ...shown(args)] as unknown as Call);
      if (image.failure !== undefined) throw image.failure;
      act(...args);
    };
  const changed = () => void image.generation++;
  return {
    write: noting(
      'write',
      (offset: number, length: number, source: IoBuffer, at: number) => {
        if (offset + length > image.bytes.length) throw new Error('past the end');
        source.bytes.copy(image.bytes, offset, at, at + length);
      },
      ([offset, length]) => [offset, length] as never,
    ),
    writeCompressed: noting('writeCompressed', () => {}),
    discard: noting('discard', () => {}),
    zero: noting('zero', () => {}),
    markZero: () => {
      throw new Error('not used by the mount');
    },
    discardClusters: () => {
      throw new Error('not used by the mount');
    },
    preallocate: noting('preallocate', () => {}),
    resize: noting('resize', (size: number) => {
      image.bytes = Buffer.concat([image.bytes, Buffer.alloc(size)], size);
      changed();
    }),
    resizeSteps: () => {
      throw new Error('not used by the mount');
    },
    makeEmpty: noting('makeEmpty', () => {}),
    changeBackingFile: noting('changeBackingFile', () => {}),
    flush: noting('flush', () => {}),
    flushAll: noting('flushAll', () => {}),
    close: noting('close', () => {}),
    holdBitmaps: () => {},
    writeVmState: noting('writeVmState', () => {}),
    createSnapshot: noting('createSnapshot', (name: string) => {
      const view = 1 + Math.max(...image.views.map((one) => one.view));
      image.views = [...image.views, { view, snapshot: snapshotNamed(String(view), name) }];
      changed();
    }),
    deleteSnapshot: noting('deleteSnapshot', (view: number) => {
      image.views = image.views.filter((one) => one.view !== view);
      changed();
    }),
    renameSnapshot: noting('renameSnapshot', (view: number, name: string) => {
      image.views = image.views.map((one) =>
        one.view === view ? { view, snapshot: { ...one.snapshot, name } } : one,
      );
      changed();
    }),
    revertTo: noting('revertTo', changed),
  };
}

const HEADER = {
  ...{
    geometry: { clusterSize: 65536, version: 3 },
    extensions: { cryptoHeader: null },
    backingFile: null,
  },
  ...{ incompatibleFeatures: 0n, compatibleFeatures: 0n, autoclearFeatures: 0n },
};

export function snapshotNamed(id: string, name: string): Snapshot {
  const zeroes = { l1TableOffset: 0, l1Size: 0, vmStateSize: 0, dateSec: 7, dateNsec: 0 };
  return { id, name, ...zeroes, diskSize: 256 * KIB, vmClock: 0n, icount: null, problem: null };
}
