/**
 * Making new images, as QEMU's tools make them. The header is written last, when all that it refers to
 * is durable: until then the file is no image, whenever it ends.
 */
import { closeSync, constants, openSync, unlinkSync } from 'node:fs';
import { ImageError } from '../../errors.js';
import { FileStorage } from '../../storage/file.js';
import type { MutableStorage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import { SECTOR_SIZE } from '../extent.js';
import { fillSpace } from '../fill-space.js';
import { encodeHeader } from './create-header.js';
import { countsPerBlock, ENTRY_SIZE, layOutImage, type Qcow2Layout } from './create-layout.js';
import { type CheckedOptions, checkOptions, type Qcow2Options } from './create-options.js';
import { copiedHigh, hostLow } from './l2.js';
import { HEADER, UNFINISHED_MAGIC } from './layout.js';

/** An image that can be written: its options are in order. */
export interface Qcow2Plan {
  readonly options: CheckedOptions;
  readonly layout: Qcow2Layout;
  /** The first cluster, as far as it is no zeroes. */
  readonly header: Buffer;
}

/** Throws an ImageError, in QEMU's words, where the options break a rule. */
export function planImage(given: Qcow2Options): Qcow2Plan {
  const options = checkOptions(given);
  const layout = layOutImage(options);
  return { options, layout, header: encodeHeader(options, layout) };
}

/**
 * Creates an image in a new file at `target`, readable by its owner alone, or in the empty file open
 * as that descriptor. A file that exists, and a link, is refused with EEXIST. Nothing is preallocated.
 * Where it throws (an ImageError or a system's error), a file that it made is gone again.
 */
export function createOverlay(
  target: string | number,
  options: Omit<Qcow2Options, 'preallocation' | 'dataFile' | 'encryption'>,
): void {
  // Before there is a file: most mistakes are found here.
  const plan = planImage(options);
  if (typeof target === 'number') {
    formatEmpty(new FileStorage(target, `descriptor ${target}`), plan);
    return;
  }
  const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const fd = openSync(target, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    formatEmpty(new FileStorage(fd, target), plan);
  } catch (error) {
    unlinkSync(target);
    throw error;
  } finally {
    closeSync(fd);
  }
}

function formatEmpty(storage: MutableStorage, plan: Qcow2Plan): void {
  if (storage.size() !== 0) {
    throw new ImageError('invalid', 'EEXIST', `${storage.name}: not empty`, {
      limit: `${storage.size()} bytes`,
    });
  }
  writeTables(storage, plan);
  writeHeader(storage, plan);
}

export interface FormatOptions {
  /** The storage is an empty file; else a device, large enough, with bytes that mean nothing. */
  readonly blank: boolean;
  /** Is told the part done, from 0 to 1, and may throw. */
  readonly advance: (fraction: number) => Promise<void>;
  /** The header begins with UNFINISHED_MAGIC: it is to be filled before it is an image. */
  readonly unfinished?: boolean | undefined;
  /** The LUKS header, where the plan has a place for one. */
  readonly luks?: Uint8Array | undefined;
}

/**
 * Writes the image into `storage`, which begins with no header. Durable when it returns, but for one that
 * is to be filled; where it throws, there is no image.
 */
export async function formatImage(
  storage: MutableStorage,
  plan: Qcow2Plan,
  { blank, advance, unfinished = false, luks }: FormatOptions,
): Promise<void> {
  const { layout, options } = plan;
  const { clusterSize } = layout.geometry;
  if (!blank) await fillSpace(storage, 0, layout.fileSize, 'full', advance);
  writeTables(storage, plan);
  if (layout.crypto !== null) {
    const header = new IoBuffer(layout.crypto.size);
    header.bytes.set(luks!);
    storage.write(header, 0, header.length, layout.crypto.at * clusterSize);
  }
  const { preallocation } = options;
  const wantsSpace = preallocation === 'falloc' || preallocation === 'full';
  if (blank && wantsSpace && layout.dataClusters > 0) {
    // One run: the layout sees to that.
    const from = layout.dataAt[0]! * clusterSize;
    const to = from + layout.dataClusters * clusterSize;
    await fillSpace(storage, from, to, preallocation, advance);
  }
  await advance(1);
  writeHeader(storage, plan, unfinished);
}

/** All but the header; what is zero is left to the file's growth. */
function writeTables(storage: MutableStorage, { layout, options }: Qcow2Plan): void {
  const { clusterSize } = layout.geometry;
  if (storage.size() < layout.fileSize) storage.truncate(layout.fileSize);
  writeRefcountBlocks(storage, layout);
  writeTable(storage, layout.refcountTableAt * clusterSize, layout.refcountBlocksAt, (at) => [
    hostLow(at * clusterSize, false),
    Math.floor((at * clusterSize) / 2 ** 32),
  ]);
  const l1 = layout.l2TablesAt;
  const l1Entry = (at: number) => [hostLow(at * clusterSize, false), copiedHigh(at * clusterSize)];
  if (l1.length > 0) writeTable(storage, layout.l1At * clusterSize, l1, l1Entry);
  // What nobody wrote in an encrypted image is not zero, unless it is said; version 2 cannot say it.
  const zero = options.encryption !== undefined && layout.geometry.version >= 3;
  for (let n = 0; n < l1.length; n++) writeL2Table(storage, layout, n, zero);
}

/** Each entry is 8 bytes: the low and the high half. */
function writeTable(
  storage: MutableStorage,
  offset: number,
  places: readonly number[],
  entryOf: (place: number) => number[],
): void {
  const table = new IoBuffer(places.length * ENTRY_SIZE);
  for (const [n, place] of places.entries()) {
    const [low, high] = entryOf(place);
    table.view.setUint32(n * ENTRY_SIZE, high!);
    table.view.setUint32(n * ENTRY_SIZE + 4, low!);
  }
  storage.write(table, 0, table.length, offset);
}

/**
 * Names the clusters that are set aside; with subclusters, none of those holds anything yet. `zero`: their
 * entries say that they are zero.
 */
function writeL2Table(
  storage: MutableStorage,
  layout: Qcow2Layout,
  n: number,
  zero: boolean,
): void {
  const { clusterSize, extendedL2, l2Entries, l2EntrySize } = layout.geometry;
  const mapped = Math.min(l2Entries, Math.ceil(layout.size / clusterSize) - n * l2Entries);
  const table = new IoBuffer(clusterSize);
  for (let index = 0; index < mapped; index++) {
    const host = (layout.dataAt[n]! + index) * clusterSize;
    table.view.setUint32(index * l2EntrySize, copiedHigh(host));
    table.view.setUint32(index * l2EntrySize + 4, hostLow(host, zero && !extendedL2));
  }
  storage.write(table, 0, table.length, layout.l2TablesAt[n]! * clusterSize);
}

/** Counts are bits of bytes from the lowest up, or numbers of whole bytes: in each of them 1. */
const ONES: Readonly<Record<number, readonly number[]>> = {
  1: [0xff],
  2: [0x55],
  4: [0x11],
  8: [1],
  16: [0, 1],
  32: [0, 0, 0, 1],
  64: [0, 0, 0, 0, 0, 0, 0, 1],
};

function writeRefcountBlocks(storage: MutableStorage, layout: Qcow2Layout): void {
  const { clusterSize, refcountBits } = layout.geometry;
  const perBlock = countsPerBlock(layout.geometry);
  const block = new IoBuffer(clusterSize);
  block.bytes.fill(Buffer.from(ONES[refcountBits]!));
  for (const [n, at] of layout.refcountBlocksAt.entries()) {
    const counted = Math.min(perBlock, layout.clusters - n * perBlock);
    if (counted < perBlock) clearCounts(block, counted, refcountBits);
    storage.write(block, 0, clusterSize, at * clusterSize);
  }
}

/** Makes the counts from `first` on zero. */
function clearCounts(block: IoBuffer, first: number, refcountBits: number): void {
  const bits = first * refcountBits;
  const whole = Math.floor(bits / 8);
  const rest = block.bytes[whole]! & ((1 << (bits % 8)) - 1);
  block.bytes.fill(0, whole);
  block.bytes[whole] = rest;
}

/** The first sector comes last, by itself: a header that is half there must not look whole. */
function writeHeader(storage: MutableStorage, { header }: Qcow2Plan, unfinished = false): void {
  const buffer = new IoBuffer(header.length);
  buffer.bytes.set(header);
  if (unfinished) {
    buffer.view.setUint32(HEADER.offsets.magic, UNFINISHED_MAGIC);
    storage.write(buffer, 0, buffer.length, 0);
    return;
  }
  const first = Math.min(header.length, SECTOR_SIZE);
  if (header.length > first) storage.write(buffer, first, header.length - first, first);
  storage.flush();
  storage.write(buffer, 0, first, 0);
  storage.flush();
}
