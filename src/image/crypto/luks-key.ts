/** Opening a LUKS header with a passphrase: any of its key slots gives the master key. */
import { pbkdf2Sync, timingSafeEqual } from 'node:crypto';
import { alignUp } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { SECTOR_SIZE } from '../extent.js';
import { readExactly } from '../read-bytes.js';
import { mergeStripes } from './anti-forensic.js';
import type { CipherKey } from './cipher-key.js';
import { checkIterations } from './iterations.js';
import { type LuksHeader, type LuksSlotSecret, STRIPES } from './luks-header.js';
import { checkCipher, sectorCipher } from './sector-cipher.js';

/** Of the digest of a master key. */
export const DIGEST_BYTES = 20;
/** What node:crypto takes. */
const MOST_ITERATIONS = 2 ** 31 - 1;

/** How the header's key slots and its image are encrypted, with `key`. */
export function luksCipher(header: LuksHeader, key: Uint8Array): CipherKey {
  return {
    cipher: header.cipherAlg.replace(/-.*/, ''),
    mode: header.cipherMode,
    ivGenerator: header.ivgenAlg,
    ivHash: header.ivgenHashAlg,
    key,
  };
}

/** A passphrase, or a master key, made into `length` bytes. */
export function stretch(
  { hashAlg }: Pick<LuksHeader, 'hashAlg'>,
  secret: Uint8Array,
  salt: Uint8Array,
  iterations: number,
  length: number,
): Buffer {
  if (iterations > MOST_ITERATIONS) {
    throw new ImageError('unsupported', 'ENOTSUP', `${iterations} iterations of LUKS keys`, {
      limit: `at most ${MOST_ITERATIONS}`,
    });
  }
  return pbkdf2Sync(secret, salt, iterations, length, hashAlg);
}

/** A master key, and the key slot that had it. */
export interface OpenedSlot {
  readonly key: Buffer;
  readonly slot: number;
}

/**
 * The master key of the header at `offset` of `storage`; null where no key slot (or not `only`, where that
 * is given) opens with the passphrase. Throws an ImageError where the cipher cannot be had, a read fails,
 * or it would take for ever.
 */
export function openKeySlot(
  storage: Storage,
  offset: number,
  header: LuksHeader,
  passphrase: Uint8Array,
  only?: number,
): OpenedSlot | null {
  checkCipher(luksCipher(header, passphrase).cipher);
  const { keyBytes, masterKeyIterations } = header;
  const tried = [...header.slots.entries()].filter(
    ([index, { active }]) => active && (only === undefined || index === only),
  );
  checkIterations(
    header.hashAlg,
    tried.flatMap(([, { iterations }]) => [
      { iterations, keyBytes },
      { iterations: masterKeyIterations, keyBytes: DIGEST_BYTES },
    ]),
  );
  for (const [index, slot] of tried) {
    const key = keyOf(storage, offset, header, slot, passphrase);
    if (isMasterKey(header, key)) return { key, slot: index };
  }
  return null;
}

function keyOf(
  storage: Storage,
  offset: number,
  header: LuksHeader,
  slot: LuksSlotSecret,
  passphrase: Uint8Array,
): Buffer {
  const { keyBytes, hashAlg } = header;
  const length = keyBytes * STRIPES;
  const place = offset + slot.keyOffset;
  const { bytes } = readExactly(storage, place, length, 'LUKS key material');
  const slotKey = stretch(header, passphrase, slot.salt, slot.iterations, keyBytes);
  const material = Buffer.alloc(alignUp(length, SECTOR_SIZE));
  bytes.copy(material);
  sectorCipher(luksCipher(header, slotKey)).decrypt(material, 0, material.length, 0);
  return mergeStripes(material.subarray(0, length), keyBytes, hashAlg);
}

function isMasterKey(header: LuksHeader, key: Uint8Array): boolean {
  const { digest, digestSalt, masterKeyIterations } = header;
  const found = stretch(header, key, digestSalt, masterKeyIterations, DIGEST_BYTES);
  return timingSafeEqual(found, digest);
}
