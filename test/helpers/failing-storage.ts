/** A file on which the host fails when it is told to: no space, an I/O error. */
import { type ErrnoName, ERRNO, SysError } from '#src/errors.js';
import { FileStorage } from '#src/storage/file.js';
import type { IoBuffer } from '#src/sys/io-buffer.js';

export class FailingStorage extends FileStorage {
  /** Writes until the next failure; Infinity for none. */
  #writesLeft = Number.POSITIVE_INFINITY;
  #errno: ErrnoName = 'EIO';
  #lasting = false;
  /** Failures so far. */
  failures = 0;
  /** Flushes so far, those that failed included. */
  flushes = 0;
  /** The next flush fails, or the next read. */
  failFlush = false;
  failRead = false;

  /** The write after `writes` others fails; with `lasting`, all after it, until `heal`. */
  failAfter(writes: number, errno: ErrnoName, lasting: boolean): void {
    this.#writesLeft = writes;
    this.#errno = errno;
    this.#lasting = lasting;
  }

  heal(): void {
    this.#writesLeft = Number.POSITIVE_INFINITY;
  }

  override flush(): void {
    this.flushes++;
    if (this.failFlush) {
      this.failFlush = false;
      throw new SysError('fdatasync', ERRNO.EIO);
    }
    super.flush();
  }

  override read(target: IoBuffer, at: number, length: number, position: number): number {
    if (this.failRead) {
      this.failRead = false;
      throw new SysError('pread', ERRNO.EIO);
    }
    return super.read(target, at, length, position);
  }

  override write(source: IoBuffer, at: number, length: number, position: number): void {
    if (this.#writesLeft-- > 0) {
      super.write(source, at, length, position);
      return;
    }
    if (!this.#lasting) this.heal();
    this.failures++;
    // As the kernel does: a part of it may be written.
    const part = length - (length % 1024) / 2;
    if (length > 1024) super.write(source, at, Math.floor(part / 2), position);
    throw new SysError('pwrite', ERRNO[this.#errno], `${length} bytes at ${position}`);
  }
}
