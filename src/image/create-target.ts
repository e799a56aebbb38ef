/**
 * A file or device that is to become an image. It keeps what it holds until `begin`: a command that is
 * wrong costs nobody an image. A file that was not there before is gone again where no image comes of it.
 */
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readlinkSync,
  type Stats,
  statSync,
  unlinkSync,
} from 'node:fs';
import { ERRNO, errnoOf, ImageError, isExpected } from '../errors.js';
import { FileStorage } from '../storage/file.js';
import { setExtentSizeHint, setNoCopyOnWrite } from '../sys/file-hints.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { strerror } from '../sys/libc.js';
import { lockImage } from './lock.js';

/** As QEMU: whose file system keeps to it writes images in fewer pieces. */
const DEFAULT_EXTENT_SIZE_HINT = 1 << 20;
/** A device that begins with so many zeroes holds no image. */
const DEVICE_START = 512;
const MODE = 0o644;

export interface TargetHints {
  readonly noCow?: boolean | undefined;
  /** Bytes; 0 for none. */
  readonly extentSizeHint?: number | undefined;
}

export class CreateTarget {
  readonly storage: FileStorage;
  /** A device has its size, and holds something. */
  readonly isDevice: boolean;
  readonly #stat: Stats;
  readonly #isNew: boolean;
  #begun = false;

  private constructor(storage: FileStorage, isNew: boolean) {
    this.storage = storage;
    this.#isNew = isNew;
    this.#stat = fstatSync(storage.fd);
    this.isDevice = !this.#stat.isFile();
  }

  /**
   * Opens the file at `path`, which is made where there is none, and takes the lock that a writer has.
   * Links are followed, as QEMU does. It must not be `other`. Throws an ImageError.
   */
  static open(path: string, other?: CreateTarget): CreateTarget {
    const { fd, isNew } = openOrCreate(path);
    const target = new CreateTarget(new FileStorage(fd, path), isNew);
    try {
      if (other?.isSame(target) === true) throw inUse(path);
      lockImage(fd, path, 'write');
      return target;
    } catch (error) {
      target.abandon();
      throw error;
    }
  }

  /** Whether the other is this very file. */
  isSame(other: CreateTarget): boolean {
    const [one, two] = [this.#stat, other.#stat];
    if (this.isDevice || other.isDevice) return one.rdev === two.rdev && one.isBlockDevice();
    return one.dev === two.dev && one.ino === two.ino;
  }

  /** What it held is gone when it returns, durably of a device: it is empty, or begins with zeroes. */
  begin(hints: TargetHints = {}): void {
    this.#begun = true;
    const { storage } = this;
    if (this.isDevice) {
      const zeroes = new IoBuffer(Math.min(DEVICE_START, storage.size()));
      storage.write(zeroes, 0, zeroes.length, 0);
      storage.flush();
      return;
    }
    storage.truncate(0);
    // Neither is more than a hint.
    if (hints.noCow === true) setNoCopyOnWrite(storage.fd);
    const { extentSizeHint = DEFAULT_EXTENT_SIZE_HINT } = hints;
    if (extentSizeHint > 0) setExtentSizeHint(storage.fd, extentSizeHint);
  }

  /** The image is whole. */
  close(): void {
    closeSync(this.storage.fd);
  }

  /** No image comes of it. */
  abandon(): void {
    const { fd } = this.storage;
    try {
      // By the descriptor: a link leads where it led.
      if (this.#isNew) unlinkSync(readlinkSync(`/proc/self/fd/${fd}`));
      else if (this.#begun && !this.isDevice) this.storage.truncate(0);
    } finally {
      closeSync(fd);
    }
  }
}

/** QEMU finds it locked by itself. */
function inUse(path: string): ImageError {
  return new ImageError('invalid', 'EAGAIN', 'Failed to get shared "resize" lock', {
    hint: `Is another process using the image [${path}]?`,
    limit: 'the data file is the image itself',
  });
}

function openOrCreate(path: string): { fd: number; isNew: boolean } {
  const { O_RDWR, O_CREAT, O_EXCL, O_NONBLOCK } = constants;
  try {
    const looked = statSync(path, { throwIfNoEntry: false });
    if (looked?.isFIFO() === true) {
      throw new ImageError('invalid', 'EINVAL', 'Could not resize file: Invalid argument');
    }
    // A block device that is mounted, or part of another one, is the kernel's: O_EXCL asks.
    const exclusive = looked?.isBlockDevice() === true ? O_EXCL : 0;
    if (looked !== undefined) {
      return { fd: openSync(path, O_RDWR | O_NONBLOCK | exclusive), isNew: false };
    }
    return { fd: openSync(path, O_RDWR | O_CREAT | O_NONBLOCK, MODE), isNew: true };
  } catch (error) {
    if (!isExpected(error) || error instanceof ImageError) throw error;
    const errno = errnoOf(error);
    const message = `Could not create '${path}': ${strerror(errno)}`;
    throw new ImageError('invalid', errno === ERRNO.ENOENT ? 'ENOENT' : 'EIO', message, {}, error);
  }
}
