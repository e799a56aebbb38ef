/**
 * What can be done to an image that is open for writing: the one door through which the mount and
 * the tools change it. Every call takes the locks that it needs (`shared/image-lock.ts`): the caller
 * holds none. Any thread may call; offsets and lengths are bytes of the guest's disk.
 *
 * All throw an ImageError or a SysError with the errno for the caller; the image is consistent then,
 * and how much of a write was done is not known. Once a flush has failed, or an inconsistency was
 * found, the image is read-only, and every call throws.
 */
import type { IoBuffer } from '../sys/io-buffer.js';
import type { Steps } from './steps.js';

/** Where saved VM state comes from. A `Disk` is one. */
export interface VmStateSource {
  /** Bytes. */
  readonly size: number;
  read(offset: number, length: number, target: IoBuffer, at: number): void;
}

/** What a snapshot is taken with. */
export interface SnapshotOptions {
  /** The state of the machine, to be saved with the disk. What lies there before is replaced. */
  readonly vmState?: VmStateSource;
  /** Snapshots of the same name are allowed, and empty names, as `qemu-img snapshot -c` does. */
  readonly allowDuplicateName?: boolean;
  /** Since 1970; now, where it is not given. */
  readonly date?: { readonly sec: number; readonly nsec: number };
  /** Nanoseconds that the machine has run. */
  readonly vmClock?: bigint;
  /** Instructions that it has executed; null where they are not counted. */
  readonly icount?: bigint | null;
}

/**
 * What a disk's new part gets when it grows: nothing; clusters; clusters with the host's space for
 * them; clusters that are written.
 */
const PREALLOCATIONS = ['off', 'metadata', 'falloc', 'full'] as const;
export type Preallocation = (typeof PREALLOCATIONS)[number];

/** The mode of that name; undefined where there is none. */
export function preallocationNamed(text: string): Preallocation | undefined {
  return PREALLOCATIONS.find((mode) => mode === text);
}

/** A backing file as an image names it. */
export interface BackingName {
  readonly file: string;
  readonly format: string | null;
}

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

export interface ImageWriter {
  /** Writes `length` bytes of `source` from byte `at` on to `offset`; the range lies in the disk. */
  write(offset: number, length: number, source: IoBuffer, at: number): void;

  /**
   * Stores the first `length` bytes of `data`, from `compressCluster`, as the cluster at `offset`. EIO
   * where that has something already; ENOTSUP in formats, and with data files, that hold none.
   */
  writeCompressed(offset: number, data: Uint8Array, length: number): void;

  /** Makes the range read as zeroes, and gives its space back where that is possible. */
  discard(offset: number, length: number): void;

  /** Makes the range read as zeroes; space that it has stays with it. */
  zero(offset: number, length: number): void;

  /**
   * Marks a range as zero, whether anything lies below or not, as QEMU's request to write zeroes does:
   * whole subclusters, or clusters where there are none; the disk may end in the last one. `unmap`: its
   * space is given back, else it stays. `changed`: the part of it that may have been something else, which
   * is all that bitmaps record. False where the format cannot say it: then the range, of which a part may
   * be done, is to be written.
   */
  markZero(offset: number, length: number, unmap: boolean, changed?: ByteRange): boolean;

  /**
   * Gives back the whole clusters of the range, the disk's last one too, as QEMU's discard does; other
   * bytes, and what would show a backing file's bytes, stay as they are.
   */
  discardClusters(offset: number, length: number): void;

  /** Sets space aside for the range; what is read stays the same. */
  preallocate(offset: number, length: number): void;

  /**
   * Makes the disk larger (by zeroes) or smaller. A multiple of 512, else EINVAL, but of raw images.
   * `preallocation`: 'off' where it is not given; raw images have no 'metadata' (ENOTSUP).
   */
  resize(size: number, preallocation?: Preallocation): void;

  /**
   * The same, in steps, of which the last before the new size counts is 1. An error that is thrown in leaves
   * the disk as large as it was.
   */
  resizeSteps(size: number, preallocation: Preallocation): Steps<void>;

  /**
   * Lets go of all that the disk holds itself: it reads as what lies below it. Durable when it returns;
   * a crash before that leaves some clusters let go of, and others not. ENOTSUP of raw images.
   */
  makeEmpty(): void;

  /**
   * Lets the image name another backing file, or none (null), in one step, after all else is durable.
   * Until it is opened again, what it reads comes from the one that it had. ENOTSUP of raw images;
   * EINVAL, ENOSPC where the header cannot hold the name.
   */
  changeBackingFile(backing: BackingName | null): void;

  /** Returns when all that was written before is durable. */
  flush(): void;

  /**
   * The same, and leaves the image as if it were closed: nothing held back, the dirty bit clear. For
   * the periodic flush.
   */
  flushAll(): void;

  /** The same, and the bitmaps are true in the file. For the end; the writer can still be used. */
  close(): void;

  /**
   * Marks all bitmaps as in use at once, not before the first change: as QEMU does, for who may end at
   * any moment. Nothing in formats without bitmaps.
   */
  holdBitmaps(): void;

  /**
   * Writes VM state: bytes behind the disk, as a machine that is saved has them. `offset`: from the
   * state's own start; any, EFBIG where the tables cannot become that long. `AttachedImage.activeVmState`
   * reads it.
   */
  writeVmState(offset: number, length: number, source: IoBuffer, at: number): void;

  /** Takes a snapshot of the disk as it is now; the disk goes on. EEXIST where the name is taken. */
  createSnapshot(name: string, options?: SnapshotOptions): void;

  /** Deletes the snapshot of that view number (`AttachedImage.snapshots`). */
  deleteSnapshot(view: number): void;

  renameSnapshot(view: number, name: string): void;

  /** Makes the disk what the snapshot is, its size too. EBUSY where the image has bitmaps. */
  revertTo(view: number): void;
}
