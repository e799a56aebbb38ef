/** Warnings about what an image holds: every thread finds the same ones, and one tells them. */
import crc32 from 'crc-32';
import { log } from '../sys/log.js';

/** Places for messages that were told; two that share one by chance are taken for the same. */
const PLACES = 1 << 16;

/** What all threads of a mount know to be told. */
export function allocateTold(): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(PLACES));
}

/** No lock: where two threads meet here at once, the message comes twice. */
export function warnOnce(told: Uint8Array, message: string): void {
  const place = (crc32.str(message) >>> 0) % told.length;
  if (told[place] !== 0) return;
  told[place] = 1;
  log.warning(message);
}
