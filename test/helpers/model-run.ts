/**
 * Random changes to an image against a shadow copy in memory: writes, zeroes, discards, resizes,
 * snapshots, reverts, and opening it again; QEMU checks and reads the result.
 */
import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { AttachedImage } from '#src/image/attach.js';
import { layerClusterSize, layerCompression } from '#src/image/description.js';
import { allocateImageMemory } from '#src/image/memory.js';
import { DEFAULT_WRITE_OPTIONS, type WriteOptions } from '#src/image/write-options.js';
import { closeImage, openImage } from '#src/image/open.js';
import { compressCluster } from '#src/image/qcow2/compression.js';
import type { Snapshot } from '#src/image/qcow2/snapshots.js';
import type { ImageWriter, VmStateSource } from '#src/image/writer.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { imageOf, imageWords } from './image-words.js';
import { qemuImg, qemuRead } from './qemu.js';
import { qemuDirty } from './qemu-bitmaps.js';
import { pattern, type Random } from './random.js';
import { readDisk } from './read.js';

const SECTOR = 512;

export interface ModelOptions {
  readonly path: string;
  readonly random: Random;
  readonly steps: number;
  /** What the image holds at first. */
  readonly start: Buffer;
  readonly format?: 'qcow2' | 'qed' | 'qcow';
  /** The disk never grows beyond. */
  readonly maxSize: number;
  /** Not everywhere: counts of 1 bit have no room for them. */
  readonly snapshots: boolean;
  readonly write?: Partial<WriteOptions>;
  /** Past the host's page cache. */
  readonly direct?: boolean;
  readonly cacheSize?: number;
  /** A file that holds what the disk does, whenever the image is closed. */
  readonly same?: string;
  /** The name of a bitmap of sectors, in which nothing is dirty at first. */
  readonly bitmap?: string | undefined;
  /** Clusters are written compressed, too. */
  readonly compress?: boolean;
}

interface Shadow {
  disk: Buffer;
  readonly snapshots: Map<string, Buffer>;
  /** Whether each sector was written to. */
  dirty: Uint8Array;
}

/** Runs the steps, and compares everything at the end, and now and then between. */
export function runModel(options: ModelOptions): void {
  const { path, random, steps } = options;
  const shadow: Shadow = {
    disk: Buffer.from(options.start),
    snapshots: new Map(),
    dirty: new Uint8Array(options.start.length / SECTOR),
  };
  let session = new Session(options);
  for (let step = 0; step < steps; step++) {
    changeOnce(session, shadow, options);
    session.expectDisk(shadow.disk, `step ${step}`);
    if (random.below(40) === 0) {
      session.close();
      expectImage(path, shadow, options);
      session = new Session(options);
    }
  }
  session.close();
  expectImage(path, shadow, options);
}

class Session {
  readonly image: AttachedImage;
  readonly writer: ImageWriter;

  constructor({ path, write, direct, cacheSize = 256 << 10 }: ModelOptions) {
    const { description } = openImage(imageOf(path), { writable: true, lock: 'write', direct });
    const memory = allocateImageMemory(description, {
      cacheSize,
      owners: 1,
      write: { ...DEFAULT_WRITE_OPTIONS, ...write },
    });
    this.image = new AttachedImage(description, memory, 1);
    this.writer = this.image.writer!;
  }

  close(): void {
    this.writer.close();
    closeImage(this.image.description);
  }

  expectDisk(wanted: Buffer, when: string): void {
    this.image.enter();
    try {
      const { disk } = this.image;
      expect(disk.size, when).to.equal(wanted.length);
      const found = new IoBuffer(wanted.length);
      disk.read(0, wanted.length, found, 0);
      if (found.bytes.equals(wanted)) return;
      const at = found.bytes.findIndex((byte, place) => byte !== wanted[place]);
      throw new Error(`${when}: byte ${at} is ${found.bytes[at]}, not ${wanted[at]}`);
    } finally {
      this.image.leave();
    }
  }
}

function changeOnce({ image, writer }: Session, shadow: Shadow, options: ModelOptions): void {
  const { random, snapshots } = options;
  const { disk } = shadow;
  const { offset, length } = rangeIn(disk.length, random);
  const choice = random.below(snapshots ? 24 : 19);
  if (choice < 10) {
    const bytes = new IoBuffer(length + 16);
    bytes.bytes.fill(random.below(4) === 0 ? 0 : 1 + random.below(255));
    writer.write(offset, length, bytes, 16);
    markDirty(shadow, offset, length);
    bytes.bytes.copy(disk, offset, 16);
  } else if (choice < 13) {
    writer.discard(offset, length);
    markDirty(shadow, offset, length);
    disk.fill(0, offset, offset + length);
  } else if (choice < 15) {
    writer.zero(offset, length);
    markDirty(shadow, offset, length);
    disk.fill(0, offset, offset + length);
  } else if (options.compress === true && random.below(3) === 0) {
    writeCompressed(image, writer, shadow, random);
  } else if (choice === 15) writer.preallocate(offset, length);
  else if (choice === 16) writer.flush();
  else if (choice === 17) writer.flushAll();
  else if (choice === 18) {
    const size = sizeFor(disk.length, options);
    if (size === null) return;
    writer.resize(size);
    const resized = Buffer.alloc(size);
    disk.copy(resized);
    shadow.disk = resized;
    const dirty = new Uint8Array(size / SECTOR);
    dirty.set(shadow.dirty.subarray(0, dirty.length));
    shadow.dirty = dirty;
  } else changeSnapshots(image, writer, shadow, random);
}

/** Another size for the disk; null where the format keeps it. */
function sizeFor(now: number, { format, random, maxSize }: ModelOptions): number | null {
  if (format === 'qcow') return null;
  const least = format === 'qed' ? now : SECTOR;
  return least + SECTOR * random.below((maxSize - least) / SECTOR + 1);
}

function markDirty({ dirty }: Shadow, offset: number, length: number): void {
  dirty.fill(1, Math.floor(offset / SECTOR), Math.ceil((offset + length) / SECTOR));
}

/** A run of clusters, as far as they are empty: what has something is refused. */
function writeCompressed(
  image: AttachedImage,
  writer: ImageWriter,
  shadow: Shadow,
  random: Random,
): void {
  const { disk } = shadow;
  const [top] = image.description.layers;
  const clusterSize = layerClusterSize(top)!;
  const first = random.below(Math.ceil(disk.length / clusterSize));
  const end = Math.min(disk.length, (first + 1 + random.below(8)) * clusterSize);
  if (random.below(3) > 0) {
    writer.discard(first * clusterSize, end - first * clusterSize);
    markDirty(shadow, first * clusterSize, end - first * clusterSize);
    disk.fill(0, first * clusterSize, end);
  }
  for (let offset = first * clusterSize; offset < end; offset += clusterSize) {
    const part = disk.subarray(offset, Math.min(end, offset + clusterSize));
    const bytes = Buffer.alloc(part.length, random.below(256));
    // Some do not compress well, and fill host clusters.
    random.bytes(random.below(bytes.length * 0.8)).copy(bytes);
    const packed = compressCluster(layerCompression(top), bytes, clusterSize);
    if (packed === null) continue;
    // Also where it is refused.
    markDirty(shadow, offset, part.length);
    try {
      writer.writeCompressed(offset, packed, packed.length);
    } catch (error) {
      expect(error).to.include({ code: 'EIO' });
      expect(String(error)).to.include('replaces nothing');
      continue;
    }
    bytes.copy(part);
  }
}

function changeSnapshots(
  image: AttachedImage,
  writer: ImageWriter,
  shadow: Shadow,
  random: Random,
): void {
  const views = image.snapshots();
  if (views.length === 0 || (views.length < 4 && random.below(3) === 0)) {
    const name = `s${random.below(1e9)}`;
    const vmState = random.below(2) === 0 ? vmStateOf(name, random.below(300_000)) : undefined;
    writer.createSnapshot(name, vmState === undefined ? {} : { vmState });
    shadow.snapshots.set(name, Buffer.from(shadow.disk));
    return;
  }
  const { view, snapshot } = views[random.below(views.length)]!;
  const held = shadow.snapshots.get(snapshot.name)!;
  expectVmState(image, view, snapshot);
  switch (random.below(3)) {
    case 0:
      writer.deleteSnapshot(view);
      shadow.snapshots.delete(snapshot.name);
      break;
    case 1: {
      const name = `renamed ${random.below(1e9)}`;
      writer.renameSnapshot(view, name);
      shadow.snapshots.delete(snapshot.name);
      shadow.snapshots.set(name, held);
      break;
    }
    default:
      writer.revertTo(view);
      shadow.disk = Buffer.from(held);
  }
}

/** Bytes that follow from a number alone, so that nobody has to remember them. */
function vmStateOf(name: string, size: number): VmStateSource {
  const bytes = pattern(Number(name.slice(1)) + size, size);
  return {
    size,
    read: (offset, length, target, at) => {
      bytes.copy(target.bytes, at, offset, offset + length);
    },
  };
}

function expectVmState(image: AttachedImage, view: number, { name, vmStateSize }: Snapshot): void {
  if (vmStateSize === 0 || !/^s\d+$/.test(name)) return;
  image.enter();
  try {
    const found = readDisk(image.vmState(view));
    expectSame(found, pattern(Number(name.slice(1)) + vmStateSize, vmStateSize), `VM of ${name}`);
  } finally {
    image.leave();
  }
}

/** Often a few sectors, at times much; at times not even whole sectors. */
function rangeIn(size: number, random: Random): { offset: number; length: number } {
  const unit = random.below(8) === 0 ? 1 : SECTOR;
  const units = size / unit;
  const first = random.below(units);
  const most = Math.min(units - first, random.below(3) === 0 ? units : Math.ceil(65536 / unit));
  return { offset: first * unit, length: (1 + random.below(most)) * unit };
}

/** What QEMU says of the image, and reads of it. */
function expectImage(
  path: string,
  { disk, snapshots, dirty }: Shadow,
  { same, bitmap, format }: ModelOptions,
): void {
  if (bitmap !== undefined) expectDirty(path, bitmap, dirty);
  if (same !== undefined) expectSame(readFileSync(same), disk, 'data file');
  // QEMU has no checks of qcow.
  if (format !== 'qcow') qemuImg('check', ...imageWords(path));
  expectSame(qemuRead(path), disk, 'disk');
  for (const [name, held] of snapshots) {
    // qemu-img reads a snapshot with the disk's size where that is another one.
    const found = qemuRead(path, name);
    const shared = Math.min(found.length, held.length);
    expectSame(found.subarray(0, shared), held.subarray(0, shared), `snapshot ${name}`);
  }
}

function expectDirty(path: string, bitmap: string, dirty: Uint8Array): void {
  const found = new Uint8Array(dirty.length);
  for (const [start, length] of qemuDirty(path, bitmap)) {
    found.fill(1, start / SECTOR, (start + length) / SECTOR);
  }
  expectSame(Buffer.from(found), Buffer.from(dirty), `bitmap ${bitmap}`);
}

function expectSame(found: Buffer, wanted: Buffer, what: string): void {
  expect(found.length, what).to.equal(wanted.length);
  if (found.equals(wanted)) return;
  const at = found.findIndex((byte, place) => byte !== wanted[place]);
  throw new Error(`${what}: byte ${at} is ${found[at]} for QEMU, not ${wanted[at]}`);
}
