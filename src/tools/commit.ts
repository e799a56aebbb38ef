/**
 * Committing: what an image and those above its base hold goes into the base, then the image is emptied.
 *
 * All that is written into the base is hidden by what lies above it, so that the image reads the same
 * all the time: while it is copied, and in the end, as the base is durable before anything of the image
 * is let go of. A crash leaves some of the data in both.
 */
import { filesOf } from '../image/description.js';
import { realpathSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { ImageError, isExpected } from '../errors.js';
import { fullName } from '../image/file-names.js';
import type { BackingSpec, ImageSpec } from '../image/spec.js';
import type { WriteOptions } from '../image/write-options.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { heldAbove } from './held.js';
import { closeAfter, type OpenDisk, openDisk } from './open-disk.js';
import type { Progress } from './progress.js';
import { resizeDisk } from './resize.js';
import { sayingWhere } from './saying-where.js';

const CHUNK_SIZE = 1 << 20;
const LONGEST_SLEEP_MS = 50;

export interface CommitRequest {
  /** What the image was opened by. */
  readonly spec: ImageSpec;
  /** The base, as an image of the chain may name it; what lies below the image where it is not given. */
  readonly base?: string | undefined;
  /** Leave the image as it is. */
  readonly keep: boolean;
  /** 0: as fast as it goes. */
  readonly bytesPerSecond: number;
  /** How the base is written to. */
  readonly write: Partial<WriteOptions>;
}

/** Commits an image that is open for writing, and leaves it open. Throws with QEMU's words. */
export async function commitDisk(
  top: OpenDisk,
  request: CommitRequest,
  progress: Progress,
): Promise<void> {
  const index = findBase(top, request);
  const base = await openBase(top, index, request);
  await closeAfter(base, () => commitInto(top, index, base, request, progress));
}

/** Commits into `base`, the layer of that index, which is open for writing by itself. */
export async function commitInto(
  top: OpenDisk,
  index: number,
  base: OpenDisk,
  { bytesPerSecond, keep, spec }: CommitRequest,
  progress: Progress,
): Promise<void> {
  if (base.size < top.size) resizeDisk(base, top.size);
  try {
    await copyDown(top, index, base, bytesPerSecond, progress);
    await progress.advance(1);
    base.writer.close();
  } catch (error) {
    throw sayingWhere('Block job failed', error);
  }
  if (!keep) empty(top, spec);
}

/** Where in the chain the base is, from 1. */
function findBase({ description }: OpenDisk, { spec, base }: CommitRequest): number {
  const { layers } = description;
  if (base === undefined) {
    if (layers.length > 1) return 1;
    throw new ImageError('missing', 'ENOENT', 'Image does not have a backing file');
  }
  for (let index = 1; index < layers.length; index++) {
    const overlay = layers[index - 1]!;
    const named = overlay.format === 'qcow2' && overlay.header.backingFile === base;
    if (named || isSame(fullName(overlay.file.path, base), layers[index]!.file.path)) return index;
  }
  const message = `Did not find '${base}' in the backing chain of '${spec.filename}'`;
  throw new ImageError('missing', 'ENOENT', message);
}

function isSame(path: string, other: string): boolean {
  try {
    return realpathSync(path) === realpathSync(other);
  } catch (error) {
    if (!isExpected(error)) throw error;
    return false;
  }
}

/** Opens the base once more, for writing. The image reads it no longer but through the lock of this one. */
async function openBase(
  top: OpenDisk,
  index: number,
  { spec, write }: CommitRequest,
): Promise<OpenDisk> {
  const layer = top.description.layers[index]!;
  const { file, format } = layer;
  let given: BackingSpec | null | undefined = spec;
  for (let depth = 0; depth < index; depth++) given = given?.backing;
  const path = given?.path ?? file.path;
  const own = { ...given, path, filename: given?.filename || path, format, keys: spec.keys };
  const policy = { readBy: filesOf(layer).map(({ fd }) => fd) };
  const options = { writable: true, write: { ...own.write, ...write }, policy };
  try {
    return await openDisk({ ...own, readOnly: false }, options);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const message = error.message.replace(`Could not open '${own.filename}': `, '');
    // As QEMU, which has the file open: what the host says of it, and nothing before that.
    const ofHost = error.code === 'EAGAIN' || error.context.operation === 'device';
    if (!ofHost && !message.startsWith('Could not open')) throw error;
    throw new ImageError(error.kind, error.code, message, error.context, error);
  }
}

async function copyDown(
  top: OpenDisk,
  levels: number,
  base: OpenDisk,
  bytesPerSecond: number,
  progress: Progress,
): Promise<void> {
  const { size } = top;
  const buffer = new IoBuffer(CHUNK_SIZE);
  const pace = paceOf(bytesPerSecond, progress);
  await progress.advance(0);
  for (let offset = 0; offset < size; ) {
    // What is not held is passed over at once, however long it is.
    const held = heldAbove(top, levels, offset, size - offset);
    const length = held > 0 ? Math.min(CHUNK_SIZE, held) : -held;
    if (held > 0) {
      const written = copyRange(top, offset, length, base, buffer);
      await pace(written, offset / size);
    }
    offset += length;
    await progress.advance(offset / size);
  }
}

/** Copies a run that the image holds; what is a hole in it becomes one in the base. Answers the bytes of the rest. */
function copyRange(
  top: OpenDisk,
  offset: number,
  length: number,
  { writer }: OpenDisk,
  buffer: IoBuffer,
): number {
  let written = 0;
  const end = offset + length;
  for (let at = offset; at < end; ) {
    const [data, stop] = dataWithin(top, at, end);
    if (data > at) writer.discard(at, data - at);
    if (stop > data) {
      top.read(data, stop - data, buffer, 0);
      writer.write(data, stop - data, buffer, 0);
      written += stop - data;
    }
    at = stop;
  }
  return written;
}

function dataWithin({ image, disk }: OpenDisk, from: number, to: number): [number, number] {
  image.enter();
  try {
    const start = Math.min(to, disk.seek(from, false, to));
    return [start, start < to ? Math.min(to, disk.seek(start, true, to)) : to];
  } finally {
    image.leave();
  }
}

function empty(top: OpenDisk, { filename }: ImageSpec): void {
  // As QEMU: other formats keep what they have, which is now below them, too.
  if (!['qcow2', 'qcow'].includes(top.description.layers[0].format)) return;
  try {
    top.writer.makeEmpty();
  } catch (error) {
    throw sayingWhere(`Failed to empty ${filename}`, error);
  }
}

/** Waits as long as so many bytes should have taken. */
function paceOf(bytesPerSecond: number, progress: Progress) {
  const start = Date.now();
  let bytes = 0;
  return async (length: number, fraction: number): Promise<void> => {
    if (bytesPerSecond === 0) return;
    bytes += length;
    const due = start + (bytes / bytesPerSecond) * 1000;
    for (let left = due - Date.now(); left > 0; left = due - Date.now()) {
      await setTimeout(Math.min(left, LONGEST_SLEEP_MS));
      await progress.advance(fraction);
    }
  };
}
