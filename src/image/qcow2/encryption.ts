/**
 * How a qcow2 image is encrypted, and its key. With LUKS, the crypto header extension says where the LUKS
 * header lies, whose payload is then the guest clusters, and sectors are numbered as they lie in the file.
 * The older AES has no header: its key is the passphrase, and sectors are numbered as on the disk.
 */
import { isAligned } from '../../codec/bits.js';
import { invalid } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import type { ImageKey } from '../crypto/cipher-key.js';
import type { KeyRing } from '../crypto/key-ring.js';
import { type LuksHeader, readLuksHeader } from '../crypto/luks-header.js';
import { luksCipher } from '../crypto/luks-key.js';
import type { EncryptionSpec } from '../spec.js';
import type { CryptoHeaderExtension } from './extensions.js';
import type { Qcow2Header } from './header.js';
import { CRYPT_METHOD } from './layout.js';

const AES_KEY_BYTES = 16;

/** Where the LUKS header lies; null without one. Throws an ImageError where it cannot be there. */
export function luksPlace(header: Qcow2Header): CryptoHeaderExtension | null {
  const { cryptMethod, geometry } = header;
  const place = header.extensions.cryptoHeader;
  if (cryptMethod !== CRYPT_METHOD.LUKS) {
    if (place === null) return null;
    throw invalid('CRYPTO header extension only expected with LUKS encryption method');
  }
  if (place === null) throw invalid(`Missing CRYPTO header for crypt method ${cryptMethod}`);
  if (isAligned(place.offset, geometry.clusterSize)) return place;
  throw invalid(
    `Encryption header offset '${place.offset}' is not a multiple of cluster size '${geometry.clusterSize}'`,
  );
}

/** An image's LUKS header, where it has one. */
export function luksHeaderOf(storage: Storage, header: Qcow2Header): LuksHeader | null {
  const place = luksPlace(header);
  return place === null ? null : readLuksHeader(storage, place);
}

/** Throws, in QEMU's words, where the image is not encrypted as it is stated. */
export function checkStatedFormat({ cryptMethod }: Qcow2Header, stated: EncryptionSpec): void {
  const { format } = stated;
  if (format === undefined) return;
  if (cryptMethod === CRYPT_METHOD.NONE) {
    throw invalid(`No encryption in image header, but options specified format '${format}'`);
  }
  const actual = cryptMethod === CRYPT_METHOD.LUKS ? 'luks' : 'aes';
  if (format === actual) return;
  throw invalid(`Header reported '${actual}' encryption format but options specify '${format}'`);
}

/** The key of an encrypted image. Throws an ImageError where the keys do not open it. */
export function keyOfImage(
  storage: Storage,
  header: Qcow2Header,
  keys: KeyRing,
  secret: string | undefined,
): ImageKey {
  const place = luksPlace(header);
  if (place === null) return passphraseKey(storage, keys, secret);
  const luks = readLuksHeader(storage, place);
  const key = keys.masterKey(storage, place.offset, luks, secret);
  return { ...luksCipher(luks, key), byHostOffset: true };
}

/** The key of an image that any passphrase fits: with a wrong one, all reads as noise. */
export function passphraseKey(
  storage: Storage,
  keys: KeyRing,
  secret: string | undefined,
): ImageKey {
  return aesKey(keys.passphrase(storage.name, secret));
}

/** What is too long is cut off, what is too short goes on with zeroes. */
function aesKey(passphrase: Uint8Array): ImageKey {
  const key = new Uint8Array(AES_KEY_BYTES);
  key.set(passphrase.subarray(0, AES_KEY_BYTES));
  const vectors = { ivGenerator: 'plain64', ivHash: null } as const;
  return { cipher: 'aes', mode: 'cbc', ...vectors, key, byHostOffset: false };
}
