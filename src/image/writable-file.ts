/** Opening a file or a device that is there, to be written to: what the system alone would find out later. */
import { closeSync, constants, openSync, type Stats } from 'node:fs';
import { ERRNO, errnoOf, ImageError } from '../errors.js';
import { isReadOnlyDevice } from '../sys/file.js';
import { strerror } from '../sys/libc.js';
import { lockImage } from './lock.js';

const { O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR } = constants;

/**
 * Its descriptor. `looked`: what stat(2) told of the path. Throws the system's own error, or an ImageError: EAGAIN
 * where who has the device holds QEMU's locks, EBUSY where the kernel has it, EACCES where it takes no writes
 * (`operation` is 'device').
 */
export function openForWriting(path: string, looked: Stats | undefined): number {
  if (looked?.isBlockDevice() !== true) return openSync(path, O_RDWR | O_NONBLOCK);
  const fd = openDevice(path);
  // It opens all the same, and each write fails.
  if (!isReadOnlyDevice(fd)) return fd;
  closeSync(fd);
  const message = 'The device is not writable: Permission denied';
  throw new ImageError('policy', 'EACCES', message, { operation: 'device' });
}

/** A device that is mounted, or part of another one, is the kernel's: O_EXCL asks. */
function openDevice(path: string): number {
  try {
    return openSync(path, O_RDWR | O_NONBLOCK | O_EXCL);
  } catch (error) {
    if (errnoOf(error) !== ERRNO.EBUSY) throw error;
    refuseWhereLocked(path);
    const limit = 'it is mounted, or part of another device';
    throw new ImageError('policy', 'EBUSY', strerror(ERRNO.EBUSY), { limit }, error);
  }
}

/** Who writes to an image on a device has it for itself, and the locks, too: those tell the process. */
function refuseWhereLocked(path: string): void {
  const fd = openSync(path, O_RDONLY | O_NONBLOCK);
  try {
    lockImage(fd, path, 'write');
  } finally {
    closeSync(fd);
  }
}
