/**
 * A file past the host's page cache (O_DIRECT), for `cache=none`. The kernel takes only whole blocks, to
 * and from aligned memory: they go through a buffer of this thread's. What is left at both ends of a
 * write goes through the page cache, which the kernel keeps in step with direct I/O; so no block is read
 * to be written again, and two threads can write to two parts of one.
 */
import { alignDown, alignUp } from '../codec/bits.js';
import { preadDirect, pwrite } from '../sys/file.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { FileStorage } from './file.js';

/** Fits every device: blocks of 512 bytes are parts of such. */
const BLOCK_SIZE = 4096;
/** Bytes that go out at once. */
const CHUNK_SIZE = 1 << 20;

export class DirectStorage extends FileStorage {
  readonly #directFd: number;
  readonly #buffer = new IoBuffer(CHUNK_SIZE + BLOCK_SIZE);
  /** Where in the buffer its first aligned byte lies. */
  readonly #start: number;

  /** `directFd`: the same file, opened with O_DIRECT. */
  constructor(fd: number, directFd: number, name: string) {
    super(fd, name);
    this.#directFd = directFd;
    this.#start = alignUp(this.#buffer.address, BLOCK_SIZE) - this.#buffer.address;
  }

  override read(target: IoBuffer, at: number, length: number, position: number): number {
    let done = 0;
    while (done < length) {
      const first = alignDown(position + done, BLOCK_SIZE);
      const skip = position + done - first;
      const wanted = Math.min(length - done, CHUNK_SIZE - skip);
      const n = preadDirect(
        this.#directFd,
        this.#buffer,
        this.#start,
        alignUp(skip + wanted, BLOCK_SIZE),
        first,
      );
      const found = Math.min(wanted, n - skip);
      if (found <= 0) break;
      const from = this.#start + skip;
      this.#buffer.bytes.copy(target.bytes, at + done, from, from + found);
      done += found;
    }
    return done;
  }

  override write(source: IoBuffer, at: number, length: number, position: number): void {
    const end = position + length;
    const first = Math.min(end, alignUp(position, BLOCK_SIZE));
    const last = Math.max(first, alignDown(end, BLOCK_SIZE));
    if (first > position) super.write(source, at, first - position, position);
    for (let place = first; place < last; ) {
      const n = Math.min(last - place, CHUNK_SIZE);
      const from = at + place - position;
      source.bytes.copy(this.#buffer.bytes, this.#start, from, from + n);
      pwrite(this.#directFd, this.#buffer, this.#start, n, place);
      place += n;
    }
    if (end > last) super.write(source, at + last - position, end - last, last);
  }
}
