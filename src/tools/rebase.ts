/**
 * Rebasing: an image gets another backing file, and reads the same over it. Where the two differ, it
 * takes what it reads now into clusters of its own. All of that is durable before the header names the
 * new backing file: a crash leaves the image over the old one, with more of its own, or over the new one.
 */
import { realpathSync } from 'node:fs';
import { errnoOf, ERRNO, ImageError, isExpected } from '../errors.js';
import { layerClusterSize, layerCompression, type LayerDescription } from '../image/description.js';
import { SECTOR_SIZE } from '../image/extent.js';
import type { Disk } from '../image/disk.js';
import type { BackingName } from '../image/writer.js';
import { compressCluster } from '../image/qcow2/compression.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { strerror } from '../sys/libc.js';
import { heldAbove } from './held.js';
import { sayingWhere } from './saying-where.js';
import type { OpenDisk } from './open-disk.js';
import type { Progress } from './progress.js';

const CHUNK_SIZE = 1 << 20;

/**
 * Takes what differs between the backing file of `overlay`, which is open for writing, and `next` (null:
 * none) into it. `compress`: whole clusters are stored compressed.
 */
export async function takeDifferences(
  overlay: OpenDisk,
  next: OpenDisk | null,
  compress: boolean,
  progress: Progress,
): Promise<void> {
  const [top] = overlay.description.layers;
  // A raw image has nothing below it.
  if (top.format === 'raw') return;
  if (compress && top.format !== 'qcow2') {
    throw new ImageError(
      'unsupported',
      'ENOTSUP',
      'Compression not supported for this file format',
    );
  }
  if (compress && top.format === 'qcow2' && top.key !== null) {
    const message = 'Compression and encryption not supported at the same time';
    throw new ImageError('unsupported', 'ENOTSUP', message);
  }
  const { size } = overlay;
  const levels = levelOf(overlay, next);
  const taker = new Taker(overlay, next, unitsOf(top), compress);
  for (let offset = 0; offset < size; ) {
    const own = heldAbove(overlay, 1, offset, size - offset);
    let length = Math.abs(own);
    if (own < 0) {
      const held = heldAbove(overlay, levels, offset, length);
      length = Math.abs(held);
      if (held > 0) length = taker.take(offset, length);
    }
    offset += length;
    await progress.advance(offset / size);
  }
}

/** Lets the image name another backing file, or none. All else is durable before. */
export function renameBacking({ writer }: OpenDisk, file: string, format: string | null): void {
  const backing: BackingName | null = file === '' ? null : { file, format };
  try {
    writer.changeBackingFile(backing);
  } catch (error) {
    if (!isExpected(error)) throw error;
    const errno = errnoOf(error);
    const why = errno === ERRNO.ENOSPC ? 'No space left in the file header' : strerror(errno);
    throw refused(file, why, error instanceof ImageError ? error.context.limit : undefined);
  }
}

/** The backing file could not be changed, and why. */
export function refused(file: string, why: string, limit?: string): ImageError {
  const message = `Could not change the backing file to '${file}': ${why}`;
  return new ImageError('invalid', 'EINVAL', message, limit === undefined ? {} : { limit });
}

/**
 * How many layers, from the top, may differ from `next`: those above it, where it is one of the chain, or
 * all of them.
 */
function levelOf({ description: { layers } }: OpenDisk, next: OpenDisk | null): number {
  const index = layers.findIndex((layer, n) => n > 0 && next !== null && isSame(layer, next));
  return index < 0 ? Number.POSITIVE_INFINITY : index;
}

function isSame({ format, file }: LayerDescription, { description }: OpenDisk): boolean {
  const [other] = description.layers;
  return format === other.format && realpathSync(file.path) === realpathSync(other.file.path);
}

/** What is let go of, and what a write takes along, in bytes; and how clusters are compressed. */
interface Units {
  readonly clusterSize: number;
  readonly subclusterSize: number;
  readonly compressionType: number;
}

function unitsOf(layer: LayerDescription): Units {
  const compressionType = layerCompression(layer);
  if (layer.format === 'qcow2') return { ...layer.header.geometry, compressionType };
  const clusterSize = layerClusterSize(layer) ?? SECTOR_SIZE;
  return { clusterSize, subclusterSize: clusterSize, compressionType };
}

type Kind = 'same' | 'zero' | 'data';

/** Goes through ranges that the image does not have itself. */
class Taker {
  readonly #overlay: OpenDisk;
  readonly #old: Disk | null;
  readonly #next: OpenDisk | null;
  readonly #compress: boolean;
  readonly #compressionType: number;
  readonly #clusterSize: number;
  readonly #unit: number;
  readonly #oldBytes: IoBuffer;
  readonly #newBytes: IoBuffer;

  constructor(
    overlay: OpenDisk,
    next: OpenDisk | null,
    { clusterSize, subclusterSize, compressionType }: Units,
    compress: boolean,
  ) {
    this.#overlay = overlay;
    this.#old = overlay.disk.backing;
    this.#next = next;
    this.#compress = compress;
    this.#compressionType = compressionType;
    this.#clusterSize = clusterSize;
    // What a write takes along, at least.
    this.#unit = compress ? clusterSize : subclusterSize;
    this.#oldBytes = new IoBuffer(Math.max(CHUNK_SIZE, clusterSize));
    this.#newBytes = new IoBuffer(this.#oldBytes.length);
  }

  /** Takes a first part of the range; answers its length. */
  take(offset: number, length: number): number {
    const skipped = this.#holeBefore(offset, offset + length) - offset;
    if (skipped > 0) return skipped;
    const whole = this.#oldBytes.length;
    const n = Math.min(length, whole - (offset % whole));
    this.#readBoth(offset, n);
    for (let at = 0; at < n; ) {
      const kind = this.#kindAt(offset, at, n);
      let end = this.#endOfUnit(offset, at, n);
      while (end < n && this.#kindAt(offset, end, n) === kind)
        end = this.#endOfUnit(offset, end, n);
      this.#store(kind, offset, at, end);
      at = end;
    }
    return n;
  }

  /** The first unit of the range in which one of the two has data. */
  #holeBefore(offset: number, end: number): number {
    const { image } = this.#overlay;
    image.enter();
    try {
      const old = nextData(this.#old, offset, end);
      const first = Math.min(old, nextData(this.#next?.disk ?? null, offset, old));
      return first >= end ? end : Math.max(offset, first - (first % this.#clusterSize));
    } finally {
      image.leave();
    }
  }

  #readBoth(offset: number, length: number): void {
    const { image } = this.#overlay;
    image.enter();
    try {
      readWithin(this.#old, offset, length, this.#oldBytes);
    } finally {
      image.leave();
    }
    readWithin(this.#next?.disk ?? null, offset, length, this.#newBytes);
  }

  #endOfUnit(offset: number, at: number, length: number): number {
    return Math.min(length, at + this.#unit - ((offset + at) % this.#unit));
  }

  #kindAt(offset: number, at: number, length: number): Kind {
    const end = this.#endOfUnit(offset, at, length);
    const old = this.#oldBytes;
    if (old.bytes.compare(this.#newBytes.bytes, at, end, at, end) === 0) return 'same';
    // As QEMU: zeroes that the old one has are written, those behind its end are marked.
    return offset + at >= (this.#old?.size ?? 0) ? 'zero' : 'data';
  }

  /** Zeroes that hide what is to come below them. */
  #zero(offset: number, from: number, to: number): void {
    const { writer } = this.#overlay;
    if (writer.markZero(offset + from, to - from, true)) return;
    writer.write(offset + from, to - from, this.#oldBytes, from);
  }

  #store(kind: Kind, offset: number, from: number, to: number): void {
    try {
      if (kind === 'zero') this.#zero(offset, from, to);
      if (kind === 'data') this.#write(offset, from, to);
    } catch (error) {
      throw sayingWhere('Error while writing to COW image', error);
    }
  }

  #write(offset: number, from: number, to: number): void {
    const { writer } = this.#overlay;
    if (!this.#compress) {
      writer.write(offset + from, to - from, this.#oldBytes, from);
      return;
    }
    for (let at = from; at < to; ) {
      const end = this.#endOfUnit(offset, at, to);
      if (!this.#writeCompressed(offset + at, at, end)) {
        writer.write(offset + at, end - at, this.#oldBytes, at);
      }
      at = end;
    }
  }

  /** False where it is no whole cluster, or does not become smaller. */
  #writeCompressed(guest: number, at: number, end: number): boolean {
    const whole = Math.min(this.#clusterSize, this.#overlay.size - guest);
    if (guest % this.#clusterSize !== 0 || end - at < whole) return false;
    const bytes = Buffer.alloc(this.#clusterSize);
    this.#oldBytes.bytes.copy(bytes, 0, at, end);
    const packed = compressCluster(this.#compressionType, bytes, this.#clusterSize);
    if (packed === null) return false;
    this.#overlay.writer.writeCompressed(guest, packed, packed.length);
    return true;
  }
}

function nextData(disk: Disk | null, offset: number, end: number): number {
  const stop = Math.min(end, disk?.size ?? 0);
  if (disk === null || offset >= stop) return end;
  const found = disk.seek(offset, false, stop);
  return found >= stop ? end : found;
}

/** Reads the range; zeroes behind the disk's end. */
function readWithin(disk: Disk | null, offset: number, length: number, target: IoBuffer): void {
  const present = Math.max(0, Math.min(length, (disk?.size ?? 0) - offset));
  if (present > 0) disk!.read(offset, present, target, 0);
  target.bytes.fill(0, present, length);
}
