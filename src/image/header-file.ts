/**
 * New images that begin with a header and an empty table, and are zeroes behind that. The header is written
 * last: before that there is no image.
 */
import type { MutableStorage } from '../storage/storage.js';
import { IoBuffer } from '../sys/io-buffer.js';

/** What the image will be; all that can be wrong with it is found before the file is touched. */
export interface HeaderPlan {
  /** Bytes. */
  readonly fileSize: number;
  /** It begins with the format's magic. */
  readonly header: Uint8Array;
}

/** Bytes of a magic that `unfinished` images lack. */
const MAGIC_SIZE = 4;

/** Fills the empty file `storage`. `unfinished`: it has no magic yet, and need not be durable. */
export function formatHeaderFile(
  storage: MutableStorage,
  { fileSize, header }: HeaderPlan,
  unfinished: boolean,
): void {
  storage.truncate(fileSize);
  if (!unfinished) storage.flush();
  const buffer = new IoBuffer(header.length);
  buffer.bytes.set(header);
  if (unfinished) buffer.bytes.fill(0, 0, MAGIC_SIZE);
  storage.write(buffer, 0, header.length, 0);
  if (!unfinished) storage.flush();
}

/** Makes an image that was unfinished one: last of all. */
export function showMagic(storage: MutableStorage, magic: Uint8Array): void {
  const buffer = new IoBuffer(magic.length);
  buffer.bytes.set(magic);
  storage.write(buffer, 0, magic.length, 0);
}
