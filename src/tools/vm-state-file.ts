/** A file of the host's as the VM state of a snapshot. */
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { ImageError } from '../errors.js';
import type { VmStateSource } from '../image/writer.js';
import { FileStorage } from '../storage/file.js';

export interface VmStateFile extends VmStateSource {
  close(): void;
}

/**
 * Opens a regular file for `createSnapshot`. Its size is taken once: where it has become shorter when it
 * is read, that throws EIO, and the snapshot is not taken. Throws an ImageError or Node's error.
 */
export function openVmStateFile(path: string): VmStateFile {
  // A FIFO must not hold us up: what is no regular file is refused.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const stat = fstatSync(fd);
  if (!stat.isFile()) {
    closeSync(fd);
    throw new ImageError('invalid', 'EINVAL', `'${path}' is no regular file`, { path });
  }
  const storage = new FileStorage(fd, path);
  return {
    size: stat.size,
    read: (offset, length, target, at) => {
      if (storage.read(target, at, length, offset) === length) return;
      throw new ImageError('invalid', 'EIO', `'${path}' has become shorter`, { path, offset });
    },
    close: () => closeSync(fd),
  };
}
