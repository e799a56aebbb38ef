/** Space for what comes to be written: set aside by the host, or written as zeroes. */
import type { MutableStorage } from '../storage/storage.js';
import { IoBuffer } from '../sys/io-buffer.js';

/** Bytes that are written at once. */
const CHUNK_SIZE = 4 << 20;

/**
 * Makes sure that [from, to) has its space, and reads as zeroes: it lies past what was ever written, or
 * `how` is 'full'. `advance` is told the part done, from 0 to 1, and may throw.
 */
export async function fillSpace(
  storage: MutableStorage,
  from: number,
  to: number,
  how: 'falloc' | 'full',
  advance: (fraction: number) => Promise<void>,
): Promise<void> {
  if (from >= to || (how === 'falloc' && storage.reserve(from, to - from))) return;
  const zeroes = new IoBuffer(Math.min(CHUNK_SIZE, to - from));
  for (let at = from; at < to; at += zeroes.length) {
    await advance((at - from) / (to - from));
    storage.write(zeroes, 0, Math.min(zeroes.length, to - at), at);
  }
}
