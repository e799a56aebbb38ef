/** VHDX: the parent locator, pairs of texts that say where the disk is over which an image lies. */
import { struct, u16, u32, bytes } from '../codec/struct.js';
import type { IoBuffer } from '../sys/io-buffer.js';

const LOCATOR = struct('VHDX parent locator', 'little', {
  type: bytes(16),
  reserved: u16,
  count: u16,
});
const PAIR = struct('VHDX parent locator entry', 'little', {
  keyOffset: u32,
  valueOffset: u32,
  keyLength: u16,
  valueLength: u16,
});
/** The keys that name a file, the best one first. */
const NAMES = ['relative_path', 'absolute_win32_path', 'volume_path'];

/** The name of the parent; null where the locator has none. */
export function parentName({ view, bytes: raw }: IoBuffer): string | null {
  if (raw.length < LOCATOR.size) return null;
  const { count } = LOCATOR.read(view, 0);
  const text = (offset: number, length: number) =>
    raw.subarray(offset, offset + length).toString('utf16le');
  const found = new Map<string, string>();
  for (let n = 0; n < count; n++) {
    const at = LOCATOR.size + n * PAIR.size;
    if (at + PAIR.size > raw.length) break;
    const { keyOffset, valueOffset, keyLength, valueLength } = PAIR.read(view, at);
    const key = text(keyOffset, keyLength);
    if (NAMES.includes(key)) found.set(key, text(valueOffset, valueLength));
  }
  const key = NAMES.find((name) => found.has(name));
  return key === undefined ? null : found.get(key)!;
}
