/**
 * The LUKS1 header of an encrypted image: how the image is encrypted, and what its keys are checked
 * with. It lies where the crypto header extension says. Source: the LUKS On-Disk Format
 * Specification, version 1.2.3; all numbers are big-endian.
 */
import { alignUp } from '../../codec/bits.js';
import { bytes, struct, u16, u32 } from '../../codec/struct.js';
import { ImageError } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { SECTOR_SIZE } from '../extent.js';
import { readExactly } from '../read-bytes.js';
import type { CipherMode, IvGenerator } from './cipher-key.js';
import type { CryptoHeaderExtension } from '../qcow2/extensions.js';

/** The header up to its key slots, which follow at once. */
export const LUKS_HEADER = struct('luks_phdr', 'big', {
  magic: bytes(6),
  version: u16,
  cipherName: bytes(32),
  cipherMode: bytes(32),
  hashSpec: bytes(32),
  payloadOffset: u32,
  keyBytes: u32,
  mkDigest: bytes(20),
  mkDigestSalt: bytes(32),
  mkDigestIterations: u32,
  uuid: bytes(40),
});

export const LUKS_KEY_SLOT = struct('luks_phdr key slot', 'big', {
  active: u32,
  iterations: u32,
  salt: bytes(32),
  keyMaterialOffset: u32,
  stripes: u32,
});

export const LUKS_KEY_SLOTS = 8;
const HEADER_SIZE = LUKS_HEADER.size + LUKS_KEY_SLOTS * LUKS_KEY_SLOT.size;

export const LUKS_MAGIC = Buffer.from('LUKS\xba\xbe', 'latin1');
/** Where the first key material may lie, and what its size is rounded up to. Bytes. */
export const KEY_MATERIAL_UNIT = 4096;
export const SLOT_STATE = { ENABLED: 0x00ac71f3, DISABLED: 0x0000dead } as const;
/** The only number of stripes in use. */
export const STRIPES = 4000;

/** Bytes of each hash's digest. */
export const HASHES: Readonly<Record<string, number>> = {
  md5: 16,
  sha1: 20,
  sha224: 28,
  sha256: 32,
  sha384: 48,
  sha512: 64,
  ripemd160: 20,
};
const CIPHER_MODES: readonly CipherMode[] = ['ecb', 'cbc', 'xts', 'ctr'];
const IV_GENERATORS: readonly IvGenerator[] = ['plain', 'plain64', 'essiv'];
/** Bytes of the keys that each cipher takes. */
const CIPHERS: Readonly<Record<string, readonly number[]>> = {
  aes: [16, 24, 32],
  cast5: [16],
  serpent: [16, 24, 32],
  twofish: [16, 24, 32],
};

export interface LuksKeySlot {
  readonly active: boolean;
  readonly iterations: number;
  readonly stripes: number;
  /** Of the key material from the header's start, in bytes. */
  readonly keyOffset: number;
}

/** How an image is encrypted. Names are QEMU's. */
export interface LuksFacts {
  readonly format: 'luks';
  readonly cipherAlg: string;
  readonly cipherMode: CipherMode;
  readonly ivgenAlg: IvGenerator;
  /** Only with the generator `essiv`. */
  readonly ivgenHashAlg: string | null;
  readonly hashAlg: string;
  readonly uuid: string;
  /** Of the encrypted data from the header's start, in bytes. */
  readonly payloadOffset: number;
  readonly masterKeyIterations: number;
  readonly slots: readonly LuksKeySlot[];
}

/** What a slot's passphrase is stretched with. */
export interface LuksSlotSecret extends LuksKeySlot {
  readonly salt: Uint8Array;
}

/** The same with what master keys are checked with. */
export interface LuksHeader extends LuksFacts {
  readonly slots: readonly LuksSlotSecret[];
  /** Bytes of the master key. */
  readonly keyBytes: number;
  readonly digest: Uint8Array;
  readonly digestSalt: Uint8Array;
}

/** Reads the LUKS header at `place`, in bytes of `storage`. Throws an ImageError (EINVAL, EIO). */
export function readLuksHeader(storage: Storage, place: CryptoHeaderExtension): LuksHeader {
  if (place.length < HEADER_SIZE || place.offset > Number.MAX_SAFE_INTEGER - HEADER_SIZE) {
    throw invalid('LUKS header exceeds its extension', `${place.length} of ${HEADER_SIZE} bytes`);
  }
  const { view } = readExactly(storage, place.offset, HEADER_SIZE, 'LUKS header');
  const header = LUKS_HEADER.read(view, 0);
  if (!LUKS_MAGIC.equals(header.magic)) {
    throw invalid('Volume is not in LUKS format');
  }
  if (header.version !== 1) {
    throw new ImageError(
      'unsupported',
      'ENOTSUP',
      `LUKS version ${header.version} is not supported`,
    );
  }
  const mode = parseMode(textOf(header.cipherMode, 'cipher mode'));
  const slots = Array.from({ length: LUKS_KEY_SLOTS }, (_, index) => readSlot(view, index));
  const payloadOffset = header.payloadOffset * SECTOR_SIZE;
  checkPlaces(slots, header.keyBytes, payloadOffset);
  if (header.mkDigestIterations === 0) throw invalid('LUKS key iteration count is zero');
  return {
    format: 'luks',
    ...mode,
    cipherAlg: cipherOf(textOf(header.cipherName, 'cipher name'), mode, header.keyBytes),
    hashAlg: known(Object.keys(HASHES), textOf(header.hashSpec, 'hash spec'), 'Hash algorithm'),
    uuid: Buffer.from(header.uuid).toString().replace(/\0.*$/s, ''),
    payloadOffset,
    masterKeyIterations: header.mkDigestIterations,
    slots,
    keyBytes: header.keyBytes,
    digest: header.mkDigest,
    digestSalt: header.mkDigestSalt,
  };
}

/** Header, key materials and payload lie apart, as QEMU wants it. Places and sizes are bytes. */
function checkPlaces(slots: readonly LuksKeySlot[], keyBytes: number, payload: number): void {
  const size = alignUp(keyBytes * STRIPES, KEY_MATERIAL_UNIT);
  if (payload < KEY_MATERIAL_UNIT) throw invalid('LUKS payload is overlapping with the header');
  for (const [index, { keyOffset }] of slots.entries()) {
    if (keyOffset < KEY_MATERIAL_UNIT) {
      throw invalid(`Keyslot ${index} is overlapping with the LUKS header`);
    }
    if (keyOffset + size > payload) {
      throw invalid(`Keyslot ${index} is overlapping with the encrypted payload`);
    }
    const other = slots.findIndex(
      (slot, at) => at > index && Math.abs(slot.keyOffset - keyOffset) < size,
    );
    if (other >= 0) throw invalid(`Keyslots ${index} and ${other} are overlapping in the header`);
  }
}

function readSlot(view: DataView, index: number): LuksSlotSecret {
  const slot = LUKS_KEY_SLOT.read(view, LUKS_HEADER.size + index * LUKS_KEY_SLOT.size);
  if (slot.active !== SLOT_STATE.ENABLED && slot.active !== SLOT_STATE.DISABLED) {
    throw invalid(`Keyslot ${index} state (active/disable) is corrupted`);
  }
  if (slot.stripes !== STRIPES) {
    throw invalid(`Keyslot ${index} is corrupted`, `${slot.stripes} stripes, must be ${STRIPES}`);
  }
  if (slot.active === SLOT_STATE.ENABLED && slot.iterations === 0) {
    throw invalid(`Keyslot ${index} iteration count is zero`);
  }
  return {
    active: slot.active === SLOT_STATE.ENABLED,
    iterations: slot.iterations,
    stripes: slot.stripes,
    keyOffset: slot.keyMaterialOffset * SECTOR_SIZE,
    salt: slot.salt,
  };
}

type Mode = Pick<LuksFacts, 'cipherMode' | 'ivgenAlg' | 'ivgenHashAlg'>;

/** MODE-IVGENERATOR, or MODE-IVGENERATOR:HASH. */
function parseMode(text: string): Mode {
  const match = /^([^-]*)-([^:]*)(?::(.*))?$/s.exec(text);
  if (match === null) throw invalid(`Unexpected cipher mode string format '${text}'`);
  const [, mode, generator, hash] = match;
  const ivgenAlg = known(IV_GENERATORS, generator!, 'IV generator');
  const ivgenHash = hash === undefined ? null : known(Object.keys(HASHES), hash, 'Hash algorithm');
  if (ivgenAlg === 'essiv' && ivgenHash === null) {
    throw invalid('Missing IV generator hash specification');
  }
  return {
    cipherMode: known(CIPHER_MODES, mode!, 'Cipher mode'),
    ivgenAlg,
    ivgenHashAlg: ivgenAlg === 'essiv' ? ivgenHash : null,
  };
}

/** The cipher with its key's bits: `aes-256`. XTS takes two keys of that size. */
function cipherOf(name: string, { cipherMode, ivgenHashAlg }: Mode, keyBytes: number): string {
  const size = cipherMode === 'xts' ? keyBytes / 2 : keyBytes;
  const sizes = Object.hasOwn(CIPHERS, name) ? CIPHERS[name]! : [];
  if (!sizes.includes(size)) {
    throw invalid(`Algorithm '${name}' with key size ${Math.floor(size)} bytes not supported`);
  }
  // essiv encrypts with the same cipher, and takes a digest for its key.
  if (ivgenHashAlg !== null && !sizes.includes(HASHES[ivgenHashAlg]!)) {
    throw invalid(
      `No ${name.toUpperCase()} cipher with key size ${HASHES[ivgenHashAlg]} available`,
    );
  }
  return `${name}-${size * 8}`;
}

function known<T extends string>(names: readonly T[], name: string, what: string): T {
  const found = names.find((candidate) => candidate === name);
  if (found !== undefined) return found;
  throw invalid(`${what} '${name}' not supported`);
}

function textOf(field: Uint8Array, what: string): string {
  const end = field.indexOf(0);
  if (end < 0) throw invalid(`LUKS header ${what} is not NUL terminated`);
  return Buffer.from(field.subarray(0, end)).toString();
}

function invalid(message: string, limit?: string): ImageError {
  return new ImageError('invalid', 'EINVAL', message, limit === undefined ? {} : { limit });
}
