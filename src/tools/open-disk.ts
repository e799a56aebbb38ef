/** A disk that a command uses: an image with its chain, opened for this thread alone. */
import { ImageError, isExpected } from '../errors.js';
import { AttachedImage, prepareToAttach, type SnapshotView } from '../image/attach.js';
import type { ImageDescription } from '../image/description.js';
import type { Disk } from '../image/disk.js';
import { allocateImageMemory } from '../image/memory.js';
import { DEFAULT_WRITE_OPTIONS, isDirect, type WriteOptions } from '../image/write-options.js';
import { closeImage, type OpenedImage, type OpenPolicy } from '../image/open.js';
import { type ImageSpec, specOf } from '../image/spec.js';
import type { ImageWriter } from '../image/writer.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import { openDescription } from './open-image.js';

const CACHE_SIZE = 32 << 20;

export interface DiskOptions {
  /** What may be opened; its lock is 'read', or 'write' with `writable`, where none is given. */
  readonly policy?: OpenPolicy;
  /** Read an image that another process writes to: no locks are taken. */
  readonly forceShare?: boolean | undefined;
  readonly writable?: boolean | undefined;
  readonly write?: Partial<WriteOptions>;
  /** Bytes of the metadata cache. */
  readonly cacheSize?: number | undefined;
}

export type AttachImage = (description: ImageDescription) => AttachedImage;

/** What is opened must be closed: a writable image is left clean by that alone. */
export class OpenDisk {
  readonly description: ImageDescription;
  /** What the user should know though the image could be opened. */
  readonly warnings: readonly string[];
  /** As of `OpenedImage`. */
  readonly staleBitmaps: readonly number[];
  readonly image: AttachedImage;
  /** Attaches anew, by a description that is true after the image's header has changed. */
  readonly attach: AttachImage;
  /** The active disk. */
  readonly disk: Disk;

  constructor({ description, warnings, staleBitmaps }: OpenedImage, attach: AttachImage) {
    this.description = description;
    this.warnings = warnings;
    this.staleBitmaps = staleBitmaps;
    this.attach = attach;
    this.image = attach(description);
    this.disk = this.image.disk;
  }

  /** Bytes of the disk. */
  get size(): number {
    return this.disk.size;
  }

  /** Throws where the disk was opened for reading. */
  get writer(): ImageWriter {
    const { writer } = this.image;
    if (writer !== null) return writer;
    throw new ImageError('policy', 'EBADF', 'the image is open for reading alone');
  }

  /** Reads from the active disk; the range lies in it. */
  read(offset: number, length: number, target: IoBuffer, at: number): void {
    this.image.enter();
    try {
      this.disk.read(offset, length, target, at);
    } finally {
      this.image.leave();
    }
  }

  /** The snapshot with that id or, where none has it, that name: as QEMU looks for it. */
  findSnapshot(idOrName: string): SnapshotView | undefined {
    const views = this.image.snapshots();
    return (
      views.find(({ snapshot }) => snapshot.id === idOrName) ??
      views.find(({ snapshot }) => snapshot.name === idOrName)
    );
  }

  /** Leaves the image clean and closes it. What throws here was not made durable. */
  close(): void {
    try {
      this.image.writer?.close();
    } finally {
      closeImage(this.description);
    }
  }

  /** Closes the files as they are: after an error that is already told. */
  abandon(): void {
    closeImage(this.description);
  }
}

/** Closes the disk behind `use`, however that ends; of two errors the first is thrown. */
export async function closeAfter<T>(disk: OpenDisk, use: () => T | Promise<T>): Promise<T> {
  let result: T;
  try {
    result = await use();
  } catch (error) {
    try {
      disk.close();
    } catch (again) {
      if (!isExpected(again)) throw again;
    }
    throw error;
  }
  disk.close();
  return result;
}

/**
 * Opens an image. Nothing stays open where it throws: an ImageError that begins with `Could not open`
 * and the image's name, as QEMU's tools say it.
 */
export async function openDisk(
  image: string | ImageSpec,
  options: DiskOptions = {},
): Promise<OpenDisk> {
  const spec = specOf(image);
  const writable = options.writable === true && spec.readOnly !== true;
  const write = { ...DEFAULT_WRITE_OPTIONS, ...spec.write, ...options.write };
  const cacheSize = options.cacheSize ?? spec.cacheSize ?? CACHE_SIZE;
  const forceShare = options.forceShare === true || spec.forceShare === true;
  if (forceShare && writable) {
    const message = `Could not open '${spec.filename}': force-share=on can only be used with read-only images`;
    throw new ImageError('policy', 'EINVAL', message);
  }
  const opened = openDescription(spec, {
    lock: forceShare ? undefined : writable ? 'write' : 'read',
    writable,
    probedRaw: true,
    direct: isDirect(write.cache) || isDirect(spec.write?.cache ?? 'writeback'),
    ...options.policy,
  });
  const { description } = opened;
  try {
    await prepareToAttach(description);
    return new OpenDisk(opened, (now) => {
      const memory = allocateImageMemory(now, { cacheSize, owners: 1, write });
      return new AttachedImage(now, memory, 1);
    });
  } catch (error) {
    closeImage(description);
    throw error;
  }
}
