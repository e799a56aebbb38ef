/** Making LUKS headers, and the key slots in them. */
import { randomBytes, randomUUID } from 'node:crypto';
import { alignUp } from '../../codec/bits.js';
import { ImageError, invalid } from '../../errors.js';
import { SECTOR_SIZE } from '../extent.js';
import { splitKey } from './anti-forensic.js';
import type { CipherMode, IvGenerator } from './cipher-key.js';
import { digestIterations, iterationsFor } from './iterations.js';
import {
  HASHES,
  KEY_MATERIAL_UNIT,
  LUKS_HEADER,
  LUKS_KEY_SLOT,
  LUKS_KEY_SLOTS,
  LUKS_MAGIC,
  type LuksHeader,
  SLOT_STATE,
  STRIPES,
} from './luks-header.js';
import { DIGEST_BYTES, luksCipher, stretch } from './luks-key.js';
import { checkCipher, sectorCipher } from './sector-cipher.js';

const SALT_BYTES = 32;

/** What a new image is to be encrypted with. Names are QEMU's. */
export interface LuksOptions {
  /** With the bits of its key: `aes-256`. */
  readonly cipherAlg: string;
  readonly mode: CipherMode;
  readonly ivGenerator: IvGenerator;
  /** Of `essiv`. */
  readonly ivHash: string;
  readonly hash: string;
  /** Milliseconds that opening a key slot takes. */
  readonly iterTime: number;
}

/** Throws an ImageError, in QEMU's words where it has some, where they do not go together. */
export function checkLuksOptions({ cipherAlg, mode, ivGenerator, ivHash }: LuksOptions): void {
  const [, name = '', bits] = /^(.*?)-?(\d+)$/.exec(cipherAlg) ?? [];
  if (/^3?des$/.test(cipherAlg)) throw invalid(`Algorithm '${cipherAlg}' not supported`);
  if (name === 'cast5' && mode === 'xts') throw invalid('Unsupported cipher mode xts');
  checkCipher(name);
  if (bits === '192' && mode !== 'xts') {
    // Key material is no whole number of sectors then, and QEMU gives up on it.
    throw new ImageError('unsupported', 'ENOTSUP', `${cipherAlg} is not supported in mode ${mode}`);
  }
  const digest = HASHES[ivHash]!;
  if (ivGenerator === 'essiv' && ![16, 24, 32].includes(digest)) {
    throw invalid(`No AES cipher with key size ${digest} available`);
  }
}

/** Bytes of the master key. */
function keyBytesOf({ cipherAlg, mode }: LuksOptions): number {
  const bytes = Number(/\d+$/.exec(cipherAlg)![0]) / 8;
  return mode === 'xts' ? 2 * bytes : bytes;
}

function materialBytes(keyBytes: number): number {
  return alignUp(keyBytes * STRIPES, KEY_MATERIAL_UNIT);
}

/** Bytes of the header with all its key slots. */
export function luksSize(options: LuksOptions): number {
  return KEY_MATERIAL_UNIT + LUKS_KEY_SLOTS * materialBytes(keyBytesOf(options));
}

/** A header as it is written, what it says, and the master key. */
export interface NewLuks {
  readonly bytes: Buffer;
  readonly header: LuksHeader;
  readonly key: Uint8Array;
}

/** A header that a passphrase opens, in its first key slot. */
export function makeLuks(options: LuksOptions, passphrase: Uint8Array): NewLuks {
  const { hash, iterTime, ivGenerator } = options;
  const keyBytes = keyBytesOf(options);
  const key = randomBytes(keyBytes);
  const digestSalt = randomBytes(SALT_BYTES);
  const masterKeyIterations = digestIterations(hash, keyBytes, iterTime);
  const header: LuksHeader = {
    format: 'luks',
    cipherAlg: options.cipherAlg,
    cipherMode: options.mode,
    ivgenAlg: ivGenerator,
    ivgenHashAlg: ivGenerator === 'essiv' ? options.ivHash : null,
    hashAlg: hash,
    uuid: randomUUID(),
    payloadOffset: luksSize(options),
    masterKeyIterations,
    slots: Array.from({ length: LUKS_KEY_SLOTS }, (_, index) => ({
      active: false,
      iterations: 0,
      stripes: STRIPES,
      keyOffset: KEY_MATERIAL_UNIT + index * materialBytes(keyBytes),
      salt: Buffer.alloc(SALT_BYTES),
    })),
    keyBytes,
    digest: stretch({ hashAlg: hash }, key, digestSalt, masterKeyIterations, DIGEST_BYTES),
    digestSalt,
  };
  const bytes = Buffer.alloc(header.payloadOffset);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  writeFields(view, header);
  for (let index = 0; index < LUKS_KEY_SLOTS; index++) {
    encodeSlot(header, index, null).copy(bytes, slotOffset(index));
  }
  const slot = makeKeySlot(header, 0, key, passphrase, iterTime);
  slot.entry.copy(bytes, slotOffset(0));
  slot.material.copy(bytes, header.slots[0]!.keyOffset);
  return { bytes, header, key };
}

function writeFields(view: DataView, header: LuksHeader): void {
  const { cipherMode, ivgenAlg, ivgenHashAlg } = header;
  const ivHash = ivgenHashAlg === null ? '' : `:${ivgenHashAlg}`;
  const text = (words: string, size: number) => {
    const bytes = Buffer.alloc(size);
    bytes.write(words);
    return bytes;
  };
  LUKS_HEADER.write(view, 0, {
    magic: LUKS_MAGIC,
    version: 1,
    cipherName: text(header.cipherAlg.replace(/-.*/, ''), LUKS_HEADER.fields.cipherName.size),
    cipherMode: text(`${cipherMode}-${ivgenAlg}${ivHash}`, LUKS_HEADER.fields.cipherMode.size),
    hashSpec: text(header.hashAlg, LUKS_HEADER.fields.hashSpec.size),
    payloadOffset: header.payloadOffset / SECTOR_SIZE,
    keyBytes: header.keyBytes,
    mkDigest: header.digest,
    mkDigestSalt: header.digestSalt,
    mkDigestIterations: header.masterKeyIterations,
    uuid: text(header.uuid, LUKS_HEADER.fields.uuid.size),
  });
}

/** Where the entry of that key slot lies in the header. */
export function slotOffset(index: number): number {
  return LUKS_HEADER.size + index * LUKS_KEY_SLOT.size;
}

/** A key slot's entry, and the key material that it leads to. */
export interface KeySlot {
  readonly entry: Buffer;
  readonly material: Buffer;
}

/** Key slot `index` with the master key, for that passphrase. `iterTime`: milliseconds. */
export function makeKeySlot(
  header: LuksHeader,
  index: number,
  key: Uint8Array,
  passphrase: Uint8Array,
  iterTime: number,
): KeySlot {
  const { hashAlg, keyBytes } = header;
  const salt = randomBytes(SALT_BYTES);
  const iterations = iterationsFor(hashAlg, keyBytes, iterTime);
  const slotKey = stretch(header, passphrase, salt, iterations, keyBytes);
  const stripes = splitKey(key, STRIPES, hashAlg);
  const material = Buffer.alloc(alignUp(stripes.length, SECTOR_SIZE));
  stripes.copy(material);
  sectorCipher(luksCipher(header, slotKey)).encrypt(material, 0, material.length, 0);
  return { entry: encodeSlot(header, index, { iterations, salt }), material };
}

/** The entry of a key slot; null: one that is not in use. */
export function encodeSlot(
  header: LuksHeader,
  index: number,
  active: { readonly iterations: number; readonly salt: Uint8Array } | null,
): Buffer {
  const entry = Buffer.alloc(LUKS_KEY_SLOT.size);
  LUKS_KEY_SLOT.write(new DataView(entry.buffer, entry.byteOffset, entry.length), 0, {
    active: active === null ? SLOT_STATE.DISABLED : SLOT_STATE.ENABLED,
    iterations: active?.iterations ?? 0,
    salt: active?.salt ?? Buffer.alloc(SALT_BYTES),
    keyMaterialOffset: header.slots[index]!.keyOffset / SECTOR_SIZE,
    stripes: STRIPES,
  });
  return entry;
}
