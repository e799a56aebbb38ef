/** Whether bytes are all zero, as fast as memory can be compared. */
import type { IoBuffer } from '../sys/io-buffer.js';

const zeroes = Buffer.alloc(1 << 16);

/** Whether the `length` bytes of `source` from byte `at` on are zeroes. */
export function isZero({ bytes }: IoBuffer, at: number, length: number): boolean {
  for (let done = 0; done < length; ) {
    const n = Math.min(length - done, zeroes.length);
    if (bytes.compare(zeroes, 0, n, at + done, at + done + n) !== 0) return false;
    done += n;
  }
  return true;
}
