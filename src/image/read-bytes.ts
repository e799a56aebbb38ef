/** Reads of whole tables while an image is opened: sizes are held against the file first. */
import { ImageError } from '../errors.js';
import type { Storage } from '../storage/storage.js';
import { IoBuffer } from '../sys/io-buffer.js';

/** At most `length` bytes at `position`: fewer where the file ends. */
export function readUpTo(storage: Storage, position: number, length: number): IoBuffer {
  const present = Math.max(0, Math.min(length, storage.size() - position));
  const buffer = new IoBuffer(present);
  const n = storage.read(buffer, 0, present, position);
  if (n < present) throw pastTheEnd(storage, position + n, 'data');
  return buffer;
}

/**
 * Exactly `length` bytes at `position`; `what` names them in the error where the file is shorter.
 * Memory is taken only once it is known that the file holds so much.
 */
export function readExactly(
  storage: Storage,
  position: number,
  length: number,
  what: string,
): IoBuffer {
  const size = storage.size();
  if (position + length > size) throw pastTheEnd(storage, position, what, size);
  const buffer = new IoBuffer(length);
  const n = storage.read(buffer, 0, length, position);
  if (n < length) throw pastTheEnd(storage, position + n, what);
  return buffer;
}

/** Bytes of a table that are read at once. */
const CHUNK_SIZE = 1 << 20;

/** Looks at `count` little-endian words of 32 bits from `position` on, in turn; errors as `readExactly`'s. */
export function eachWord(
  storage: Storage,
  position: number,
  count: number,
  what: string,
  look: (word: number, index: number) => void,
): void {
  const size = count * 4;
  for (let done = 0; done < size; done += CHUNK_SIZE) {
    const length = Math.min(CHUNK_SIZE, size - done);
    const { view } = readExactly(storage, position + done, length, what);
    for (let at = 0; at < length; at += 4) look(view.getUint32(at, true), (done + at) / 4);
  }
}

function pastTheEnd(
  storage: Storage,
  offset: number,
  what: string,
  size = storage.size(),
): ImageError {
  return new ImageError('corrupt', 'EIO', `${what} at offset ${offset} lies past the end of file`, {
    path: storage.name,
    offset,
    limit: `file size ${size}`,
  });
}
