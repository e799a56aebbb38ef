/**
 * The anti-forensic splitter of LUKS: a key is kept as many stripes of its own length, of which every bit is
 * needed to have it again. Source: the LUKS On-Disk Format Specification, section 2.4.
 */
import { createHash, randomFillSync } from 'node:crypto';
import { HASHES } from './luks-header.js';

/** A key of `keyBytes` bytes from its stripes. */
export function mergeStripes(material: Buffer, keyBytes: number, hash: string): Buffer {
  const last = material.length - keyBytes;
  const key = lastStripeKey(material, keyBytes, hash);
  for (let n = 0; n < keyBytes; n++) key[n]! ^= material[last + n]!;
  return key;
}

/** `stripes` stripes that `key` can be had of again. */
export function splitKey(key: Uint8Array, stripes: number, hash: string): Buffer {
  const material = Buffer.alloc(key.length * stripes);
  const last = material.length - key.length;
  randomFillSync(material, 0, last);
  const mask = lastStripeKey(material, key.length, hash);
  for (let n = 0; n < key.length; n++) material[last + n] = mask[n]! ^ key[n]!;
  return material;
}

/** What the last stripe is XORed with: all those before it, diffused. */
function lastStripeKey(material: Buffer, keyBytes: number, hash: string): Buffer {
  let key: Buffer = Buffer.alloc(keyBytes);
  for (let at = 0; at < material.length - keyBytes; at += keyBytes) {
    for (let n = 0; n < keyBytes; n++) key[n]! ^= material[at + n]!;
    key = diffuse(key, hash);
  }
  return key;
}

/** Each part of a digest's length becomes the digest of its number and itself, cut off at the end. */
function diffuse(key: Buffer, hash: string): Buffer {
  const parts: Buffer[] = [];
  const size = HASHES[hash]!;
  const number = Buffer.alloc(4);
  for (let at = 0; at < key.length; at += size) {
    number.writeUInt32BE(at / size);
    const part = key.subarray(at, at + size);
    parts.push(createHash(hash).update(number).update(part).digest());
  }
  return Buffer.concat(parts).subarray(0, key.length);
}
