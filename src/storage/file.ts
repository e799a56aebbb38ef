/** A regular file or a block device, by its descriptor. */
import {
  fdatasync,
  pread,
  punchHole,
  pwrite,
  reserve,
  reserveBehind,
  seekExtent,
  sizeOf,
  truncate,
} from '../sys/file.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import type { MutableStorage } from './storage.js';

export class FileStorage implements MutableStorage {
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

  write(source: IoBuffer, at: number, length: number, position: number): void {
    pwrite(this.fd, source, at, length, position);
  }

  flush(): void {
    fdatasync(this.fd);
  }

  punch(position: number, length: number): boolean {
    return punchHole(this.fd, position, length);
  }

  reserve(position: number, length: number): boolean {
    return reserve(this.fd, position, length);
  }

  /** Space past the file's end, which stays where it is. False where the host cannot. */
  reserveBehind(position: number, length: number): boolean {
    return reserveBehind(this.fd, position, length);
  }

  truncate(size: number): void {
    truncate(this.fd, size);
  }
}
