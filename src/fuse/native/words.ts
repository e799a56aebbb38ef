/** What libfuse and fusermount say. They write to descriptor 2, and fuse-native says only `fuse failed`. */
import { closeSync, readSync } from 'node:fs';
import { socketPair } from '../../sys/mount.js';
import { duplicateDescriptor, replaceDescriptor } from '../../sys/process.js';

/** Bytes that are read at once. */
const PIECE = 4096;

/** Does it while descriptor 2 leads here; answers how that ended, and what was said. */
export async function hearing(
  body: () => Promise<void>,
): Promise<{ readonly error: unknown; readonly words: string }> {
  const saved = duplicateDescriptor(2);
  const [ours, theirs] = socketPair();
  replaceDescriptor(2, theirs);
  closeSync(theirs);
  let error: unknown;
  try {
    await body();
  } catch (thrown) {
    error = thrown;
  }
  replaceDescriptor(2, saved);
  closeSync(saved);
  const words = wordsFrom(ours);
  closeSync(ours);
  return { error, words };
}

function wordsFrom(socket: number): string {
  const pieces: Buffer[] = [];
  for (;;) {
    const piece = Buffer.alloc(PIECE);
    const length = readSync(socket, piece);
    if (length === 0) break;
    pieces.push(piece.subarray(0, length));
  }
  return Buffer.concat(pieces)
    .toString()
    .trim()
    .replace(/^(?:fusermount3?|fuse): /gm, '')
    .replace(/\n/g, '; ');
}
