/** Reading a disk of an open image, for the library: the active one's, or a snapshot's. */
import { ImageError } from '../errors.js';
import type { Disk as ImageDisk } from '../image/disk.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { type BlockStatus, blockStatus } from '../tools/block-status.js';
import type { OpenDisk } from '../tools/open-disk.js';
import type { Disk, Extent } from './types.js';

/** Bytes that go through memory at once. */
const CHUNK_SIZE = 1 << 20;

/** An open image, and memory that its disks share: they are for one thread. */
export class Opened {
  readonly disk: OpenDisk;
  #buffer: IoBuffer | undefined;
  #isClosed = false;

  constructor(disk: OpenDisk) {
    this.disk = disk;
  }

  get buffer(): IoBuffer {
    this.#buffer ??= new IoBuffer(CHUNK_SIZE);
    return this.#buffer;
  }

  /** Throws where the image is closed: its descriptors may be another file's by now. */
  use(): OpenDisk {
    if (!this.#isClosed) return this.disk;
    const { path } = this.disk.description.layers[0].file;
    throw new ImageError('policy', 'EBADF', `${path}: the image is closed`);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.disk.close();
  }
}

/** Throws a RangeError where the range does not lie in a disk of `size` bytes. */
export function checkRange(size: number, offset: number, length: number): void {
  const isValid = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
  if (isValid && offset >= 0 && length >= 0 && offset <= size - length) return;
  throw new RangeError(`${length} bytes at ${offset}: not in a disk of ${size} bytes`);
}

/** A range in parts that fit into the buffer: `done` bytes of it come before each. */
export function* chunks(
  offset: number,
  length: number,
): Generator<{ readonly at: number; readonly done: number; readonly n: number }> {
  for (let done = 0; done < length; done += CHUNK_SIZE) {
    yield { at: offset + done, done, n: Math.min(CHUNK_SIZE, length - done) };
  }
}

export class DiskReader implements Disk {
  protected readonly opened: Opened;
  readonly #find: () => ImageDisk;

  /** `find`: the disk as it is now. */
  constructor(opened: Opened, find: () => ImageDisk) {
    this.opened = opened;
    this.#find = find;
  }

  get size(): number {
    this.opened.use();
    return this.#find().size;
  }

  read(offset: number, length: number): Uint8Array {
    checkRange(this.size, offset, length);
    const target = new Uint8Array(length);
    this.readInto(offset, target);
    return target;
  }

  readInto(offset: number, target: Uint8Array): void {
    const { image } = this.opened.use();
    const { buffer } = this.opened;
    const disk = this.#find();
    checkRange(disk.size, offset, target.length);
    for (const { at, done, n } of chunks(offset, target.length)) {
      image.enter();
      try {
        disk.read(at, n, buffer, 0);
      } finally {
        image.leave();
      }
      target.set(buffer.bytes.subarray(0, n), done);
    }
  }

  extents(offset = 0, length = this.size - offset): IterableIterator<Extent> {
    checkRange(this.size, offset, length);
    return this.#extents(offset, length);
  }

  *#extents(offset: number, length: number): Generator<Extent, undefined, undefined> {
    const { description } = this.opened.use();
    for (const run of blockStatus({ description, disk: this.#find() }, offset, offset + length)) {
      yield extentOf(run);
      this.opened.use();
    }
  }
}

function extentOf(run: BlockStatus): Extent {
  const { start, length, zero, data, compressed, depth, present, file, offset } = run;
  const host = file === null || offset === null ? null : { file, offset };
  return { offset: start, length, zero, data, compressed, depth, present, host };
}
