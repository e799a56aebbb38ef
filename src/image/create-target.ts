/**
 * Files or devices that are to become an image. They keep what they hold until `begin`: a command that is
 * wrong costs nobody an image. Each is locked from before that until it is closed. Where no image comes of
 * it, a file that was not there before is gone again, and one that was there is empty, if it was begun.
 */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readlinkSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { ERRNO, errnoOf, ImageError, isExpected } from '../errors.js';
import { FileStorage } from '../storage/file.js';
import { setExtentSizeHint, setNoCopyOnWrite } from '../sys/file-hints.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { strerror } from '../sys/libc.js';
import { fileIdentity, identityOf } from './file-identity.js';
import { inUse, lockImage } from './lock.js';
import { openForWriting } from './writable-file.js';

/** As QEMU: whose file system keeps to it writes images in fewer pieces. */
const DEFAULT_EXTENT_SIZE_HINT = 1 << 20;
/** A device that begins with so many zeroes holds no image. */
const DEVICE_START = 512;
const MODE = 0o644;
/** How often a file is looked for again that others remove or make meanwhile, and links are followed. */
const MOST_TRIES = 40;

export interface TargetHints {
  readonly noCow?: boolean | undefined;
  /** Bytes; 0 for none. */
  readonly extentSizeHint?: number | undefined;
}

/** The files of one image: its own and, where it has one, the data file. */
export class NewFiles {
  readonly image: CreateTarget;
  readonly data: CreateTarget | null;

  private constructor(image: CreateTarget, data: CreateTarget | null) {
    this.image = image;
    this.data = data;
  }

  /** None of them may be one of `others` (`fileIdentity`), or the other one. Throws an ImageError. */
  static open(path: string, dataPath: string | undefined, others: readonly string[]): NewFiles {
    const image = CreateTarget.open(path, others);
    if (dataPath === undefined) return new NewFiles(image, null);
    try {
      return new NewFiles(image, CreateTarget.open(dataPath, others, image));
    } catch (error) {
      image.abandon();
      throw error;
    }
  }

  /** The image is whole. */
  close(): void {
    this.data?.close();
    this.image.close();
  }

  /** No image comes of it. */
  abandon(): void {
    this.data?.abandon();
    this.image.abandon();
  }
}

export class CreateTarget {
  readonly storage: FileStorage;
  /** A device has its size, and holds something. */
  readonly isDevice: boolean;
  readonly #isNew: boolean;
  #locked = false;
  #begun = false;

  private constructor(storage: FileStorage, isNew: boolean) {
    this.storage = storage;
    this.#isNew = isNew;
    this.isDevice = !fstatSync(storage.fd).isFile();
  }

  /**
   * Opens the file at `path`, which is made where there is none, and takes the lock that a writer has.
   * Links are followed, as QEMU does. It must be none of `others`, nor the `image` whose data file it is.
   * Throws an ImageError.
   */
  static open(path: string, others: readonly string[], image?: CreateTarget): CreateTarget {
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      const { fd, isNew } = openOrCreate(path);
      const target = new CreateTarget(new FileStorage(fd, path), isNew);
      try {
        const identity = fileIdentity(fd);
        // As QEMU says it, which finds them locked by itself.
        if (image !== undefined && fileIdentity(image.storage.fd) === identity) {
          throw inUse(path, 'shared "resize"', 'the data file is the image itself');
        }
        if (others.includes(identity)) throw inUse(path, '"write"', 'it is what is read');
        target.#lock();
        // Who held the lock before may have removed it: the name must lead here still.
        if (isAt(path, identity)) return target;
      } catch (error) {
        target.abandon();
        throw error;
      }
      target.close();
    }
    throw inUse(path, '"write"', 'others make it and remove it');
  }

  #lock(): void {
    const { fd, name } = this.storage;
    try {
      lockImage(fd, name, 'write');
      this.#locked = true;
    } catch (error) {
      throw this.isDevice ? onDevice(error) : error;
    }
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
    // Of a file that was cut, ext4 writes all data out when it is closed, and whoever closes it waits.
    if (storage.size() > 0) storage.truncate(0);
    // Neither is more than a hint.
    if (hints.noCow === true) setNoCopyOnWrite(storage.fd);
    const { extentSizeHint = DEFAULT_EXTENT_SIZE_HINT } = hints;
    if (extentSizeHint > 0) setExtentSizeHint(storage.fd, extentSizeHint);
  }

  /** The image is whole. */
  close(): void {
    closeSync(this.storage.fd);
  }

  /**
   * No image comes of it. Where it cannot be cleaned up, it stays as it is: the error that leads here is
   * the one to be told. What is not locked is another's, whoever made it.
   */
  abandon(): void {
    const { fd } = this.storage;
    try {
      if (!this.#locked || this.isDevice) return;
      if (this.#isNew && removeFile(fd)) return;
      if (this.#begun) this.storage.truncate(0);
    } catch (error) {
      if (!isExpected(error)) throw error;
    } finally {
      closeSync(fd);
    }
  }
}

function isAt(path: string, identity: string): boolean {
  try {
    return identityOf(statSync(path)) === identity;
  } catch (error) {
    if (!isExpected(error)) throw error;
    return false;
  }
}

/** By the descriptor: a link leads where it led, and a file can have been moved. False where it stays. */
function removeFile(fd: number): boolean {
  try {
    // "NAME (deleted)" where it was removed: a name that may be another file's.
    const path = readlinkSync(`/proc/self/fd/${fd}`);
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (found === undefined || identityOf(found) !== fileIdentity(fd)) return false;
    unlinkSync(path);
    return true;
  } catch (error) {
    if (!isExpected(error)) throw error;
    return false;
  }
}

/** Errors are worded. */
function openOrCreate(path: string): { fd: number; isNew: boolean } {
  try {
    return openOrCreateOnce(path);
  } catch (error) {
    if (!isExpected(error) || error instanceof ImageError) throw error;
    const errno = errnoOf(error);
    const message = `Could not create '${path}': ${strerror(errno)}`;
    throw new ImageError('invalid', errno === ERRNO.ENOENT ? 'ENOENT' : 'EIO', message, {}, error);
  }
}

/** Tells for sure whether the file was there: of two that make it at once, one does. */
function openOrCreateOnce(path: string): { fd: number; isNew: boolean } {
  const { O_RDWR, O_CREAT, O_EXCL, O_NONBLOCK } = constants;
  let name = path;
  for (let tries = 0; ; tries++) {
    try {
      return { fd: openSync(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, MODE), isNew: true };
    } catch (error) {
      if (errnoOf(error) !== ERRNO.EEXIST) throw error;
    }
    const looked = statSync(name, { throwIfNoEntry: false });
    if (looked?.isFIFO() === true) {
      throw new ImageError('invalid', 'EINVAL', 'Could not resize file: Invalid argument');
    }
    try {
      return { fd: openForWriting(name, looked), isNew: false };
    } catch (error) {
      if (looked?.isBlockDevice() === true) throw onDevice(error);
      // A link to nothing, or it was removed just now.
      if (errnoOf(error) !== ERRNO.ENOENT || tries === MOST_TRIES) throw error;
    }
    name = behindLink(name);
  }
}

/** As QEMU says it of a device, which is there already. */
function onDevice(error: unknown): unknown {
  if (!(error instanceof ImageError)) return error;
  const what = "Protocol driver 'host_device' does not support image creation";
  const message = `${what}, and opening the image failed: ${error.message}`;
  return new ImageError(error.kind, error.code, message, error.context, error);
}

/** Where a link leads; not made shorter, as behind another link `..` leads elsewhere. */
function behindLink(name: string): string {
  if (lstatSync(name, { throwIfNoEntry: false })?.isSymbolicLink() !== true) return name;
  const target = readlinkSync(name);
  return target.startsWith('/') ? target : `${dirname(name)}/${target}`;
}
