/** The header of qcow images of version 1. */
import { alignUp, isAligned, TWO_32 } from '../../codec/bits.js';
import { bytes, struct, u16, u32, u64, u8 } from '../../codec/struct.js';
import { ImageError, invalid } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { SECTOR_SIZE } from '../extent.js';
import { readExactly } from '../read-bytes.js';
import type { ByteRange } from '../writer.js';

export const HEADER = struct('qcow header', 'big', {
  magic: bytes(4),
  version: u32,
  backingNameOffset: u64,
  backingNameSize: u32,
  mtime: u32,
  size: u64,
  clusterBits: u8,
  l2Bits: u8,
  padding: u16,
  cryptMethod: u32,
  l1TableOffset: u64,
});

export const MAGIC = Buffer.from('QFI\xfb', 'latin1');
export const VERSION = 1;
export const CRYPT = { NONE: 0, AES: 1 } as const;
export const ENTRY_SIZE = 8;
const MAX_BITS = 16;
const MIN_BITS = 9;
const ENTRY_BITS = 3;
export const LONGEST_NAME = 1023;
/** Entries of an L1 table that QEMU opens. */
export const MAX_L1_SIZE = 0x7fff_ffff / ENTRY_SIZE;

/** What the header tells. Sizes and offsets are bytes. */
export interface Qcow1Header {
  readonly clusterBits: number;
  readonly clusterSize: number;
  /** Entries of an L2 table. */
  readonly l2Entries: number;
  readonly l1TableOffset: number;
  readonly size: number;
  readonly encrypted: boolean;
  readonly backingName: string | null;
  /** Of no length where there is none. */
  readonly backingNamePlace: ByteRange;
}

/** The highest bit of an entry, in its upper half. */
export const COMPRESSED = 0x8000_0000;
/** Bits of an entry but for the highest. */
const VALUE_BITS = 63;

/** By which the size of compressed data is multiplied in the upper half of an entry. */
function sizeFactor(clusterBits: number): number {
  return 2 ** (VALUE_BITS - clusterBits - 32);
}

/** The upper half of the entry of compressed data. Throws EFBIG where it lies too far for that. */
export function compressedHigh(
  { clusterBits }: Qcow1Header,
  offset: number,
  length: number,
): number {
  const factor = sizeFactor(clusterBits);
  const high = Math.floor(offset / TWO_32);
  if (high < factor) return COMPRESSED + length * factor + high;
  throw new ImageError('invalid', 'EFBIG', 'no place for compressed data', { offset });
}

/** Where the data of a compressed cluster lies, by the halves of its entry. */
export function compressedOffset({ clusterBits }: Qcow1Header, low: number, high: number): number {
  return ((high - COMPRESSED) % sizeFactor(clusterBits)) * TWO_32 + low;
}

/** Its bytes: the size has as many bits as a cluster's, below the highest. */
export function compressedLength({ clusterBits, clusterSize }: Qcow1Header, high: number): number {
  return Math.floor((high - COMPRESSED) / sizeFactor(clusterBits)) % clusterSize;
}

/** Bytes of an L2 table. */
export function l2BytesOf({ l2Entries }: Qcow1Header): number {
  return l2Entries * ENTRY_SIZE;
}

/** Bytes of the L1 table. */
export function l1BytesOf({ size, clusterSize, l2Entries }: Qcow1Header): number {
  return Math.ceil(alignUp(size, SECTOR_SIZE) / (clusterSize * l2Entries)) * ENTRY_SIZE;
}

/** Reads and checks the header; `unfinished`: it has no magic yet. Throws an ImageError, in QEMU's words where it has them. */
export function readHeader(storage: Storage, unfinished: boolean): Qcow1Header {
  const { view } = readExactly(storage, 0, HEADER.size, 'qcow header');
  const raw = HEADER.read(view, 0);
  const magic = unfinished ? Buffer.alloc(MAGIC.length) : MAGIC;
  if (!magic.equals(raw.magic)) throw invalid('Image not in qcow format');
  if (raw.version !== VERSION) {
    const message =
      raw.version === 2 || raw.version === 3
        ? `qcow (v${raw.version}) does not support qcow version ${raw.version}`
        : `Unsupported qcow version ${raw.version}`;
    throw new ImageError('unsupported', 'ENOTSUP', message);
  }
  if (raw.size <= 1) throw invalid('Image size is too small (must be at least 2 bytes)');
  const { clusterBits, l2Bits } = raw;
  if (clusterBits < MIN_BITS || clusterBits > MAX_BITS) {
    throw invalid('Cluster size must be between 512 and 64k');
  }
  if (l2Bits < MIN_BITS - ENTRY_BITS || l2Bits > MAX_BITS - ENTRY_BITS) {
    throw invalid('L2 table size must be between 512 and 64k');
  }
  if (raw.cryptMethod > CRYPT.AES) throw invalid('invalid encryption method in qcow header');
  const coverage = 2 ** (clusterBits + l2Bits);
  const l1Size = Math.ceil(raw.size / coverage);
  if (raw.size > Number.MAX_SAFE_INTEGER || l1Size > MAX_L1_SIZE) throw invalid('Image too large');
  const { l1TableOffset } = raw;
  if (!isAligned(l1TableOffset, ENTRY_SIZE) || l1TableOffset > Number.MAX_SAFE_INTEGER) {
    throw invalid(`L1 table offset ${l1TableOffset} is invalid`);
  }
  // The table itself may lack its end, as of images that were only just made.
  return {
    clusterBits,
    clusterSize: 2 ** clusterBits,
    l2Entries: 2 ** l2Bits,
    l1TableOffset,
    size: raw.size - (raw.size % SECTOR_SIZE),
    encrypted: raw.cryptMethod === CRYPT.AES,
    backingName: readName(storage, raw.backingNameOffset, raw.backingNameSize),
    backingNamePlace: {
      offset: raw.backingNameOffset,
      length: raw.backingNameOffset === 0 ? 0 : raw.backingNameSize,
    },
  };
}

function readName(storage: Storage, offset: number, size: number): string | null {
  if (offset === 0 || size === 0) return null;
  if (size > LONGEST_NAME) throw invalid('Backing file name too long');
  if (offset > Number.MAX_SAFE_INTEGER) throw invalid('Backing file name is not in the file');
  return readExactly(storage, offset, size, 'backing file name').bytes.toString('utf8');
}
