/** Making qcow images of version 1: a header, the backing file's name, an empty L1 table. */
import { alignUp } from '../../codec/bits.js';
import { ImageError, invalid } from '../../errors.js';
import { SECTOR_SIZE } from '../extent.js';
import type { HeaderPlan } from '../header-file.js';
import { CRYPT, ENTRY_SIZE, HEADER, LONGEST_NAME, MAGIC, MAX_L1_SIZE, VERSION } from './header.js';

/** Clusters of 4 KiB, and L2 tables of one; over a backing file of 512 bytes: less is copied up. */
const PLAIN = { clusterBits: 12, l2Bits: 9 } as const;
const OVER_BACKING = { clusterBits: 9, l2Bits: 12 } as const;

export interface Qcow1Options {
  /** Bytes. */
  readonly size: number;
  readonly backingFile?: string | undefined;
  readonly encrypted: boolean;
}

/** Throws an ImageError, in QEMU's words where it has them; what it makes, and cannot open, is not made. */
export function planQcow1({ size, backingFile, encrypted }: Qcow1Options): HeaderPlan {
  if (size === 0) throw invalid('Image size is too small, cannot be zero length');
  const bits = backingFile === undefined ? PLAIN : OVER_BACKING;
  const { clusterBits, l2Bits } = bits;
  const rounded = alignUp(size, SECTOR_SIZE);
  const l1Size = Math.ceil(rounded / 2 ** (clusterBits + l2Bits));
  if (rounded > Number.MAX_SAFE_INTEGER || l1Size > MAX_L1_SIZE) {
    const limit = `${MAX_L1_SIZE * 2 ** (clusterBits + l2Bits)} bytes`;
    throw new ImageError('invalid', 'EINVAL', 'Image too large', { limit });
  }
  const name = Buffer.from(backingFile ?? '');
  if (name.length > LONGEST_NAME) throw invalid('Backing file name too long');
  const l1TableOffset = alignUp(HEADER.size + name.length, ENTRY_SIZE);
  const header = Buffer.alloc(HEADER.size + name.length);
  HEADER.write(new DataView(header.buffer, header.byteOffset, header.length), 0, {
    magic: MAGIC,
    version: VERSION,
    backingNameOffset: name.length === 0 ? 0 : HEADER.size,
    backingNameSize: name.length,
    size: rounded,
    ...bits,
    cryptMethod: encrypted ? CRYPT.AES : CRYPT.NONE,
    l1TableOffset,
  });
  name.copy(header, HEADER.size);
  return { fileSize: l1TableOffset + alignUp(l1Size * ENTRY_SIZE, SECTOR_SIZE), header };
}
