/** A regular file or a block device, by its descriptor. */
import { pread, seekExtent, sizeOf } from '../sys/file.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import type { Storage } from './storage.js';

export class FileStorage implements Storage {
  readonly name: string;
  readonly fd: number;

  constructor(fd: number, name: string) {
    this.fd = fd;
    this.name = name;
  }

  size(): number {
    return sizeOf(this.fd);
  }

  read(target: IoBuffer, at: number, length: number, position: number): number {
    return pread(this.fd, target, at, length, position);
  }

  nextData(position: number, end: number): number {
    return seekExtent(this.fd, position, false, end);
  }

  nextHole(position: number, end: number): number {
    return seekExtent(this.fd, position, true, end);
  }
}
