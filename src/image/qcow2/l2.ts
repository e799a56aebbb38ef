/**
 * Entries of L1 and L2 tables. Raw bits are tested only here and in `subclusters`; everyone else
 * sees a `Piece`. An entry comes as two 32-bit halves: `low` has bits 0-31, `high` bits 32-63.
 */
import { TWO_32 } from '../../codec/bits.js';
import { EXTENT, type ExtentKind } from '../extent.js';
import type { Geometry } from './geometry.js';

// Bits of `high`.
const COPIED = 0x8000_0000;
const COMPRESSED = 0x4000_0000;
const OFFSET_HIGH = 0x00ff_ffff;
// Bits of `low`.
const ZERO = 1;
const OFFSET_LOW = 0xffff_fe00;

// Bits that must be 0: 56-62 of L1 entries, 56-61 of L2 descriptors, and those below the offset.
const L1_RESERVED_HIGH = 0x7f00_0000;
const L2_RESERVED_HIGH = 0x3f00_0000;
const RESERVED_LOW = 0x1ff;

/** Compressed data is counted in sectors of so many bytes. */
const COMPRESSED_SECTOR_SIZE = 512;

/** Part of one guest cluster that is of one kind: what an L2 entry says of a place in it. */
export class Piece {
  kind: ExtentKind = EXTENT.UNALLOCATED;
  length = 0;
  /** Of the place asked for; of the whole compressed data where it is compressed. 0: none. */
  hostOffset = 0;
  hostLength = 0;
  /** Whether the entry names a host cluster: in an external data file it may lie at 0. */
  hasHost = false;
  /** Whether the entry says that no snapshot shares its host cluster. */
  copied = false;
  /** What is wrong with the entry, if anything. */
  problem: string | null = null;
}

/** Decodes the L2 entry whose words begin at `words[at]` for the place `within` its cluster. */
export type DecodePiece = (words: Uint32Array, at: number, within: number, piece: Piece) => void;

/** The host offset in bits 9-55 of an L1 or L2 entry. */
export function hostOffsetOf(low: number, high: number): number {
  return (high & OFFSET_HIGH) * TWO_32 + ((low & OFFSET_LOW) >>> 0);
}

export function isCopied(high: number): boolean {
  return (high & COPIED) !== 0;
}

/** The high half with the COPIED flag set or cleared. */
export function withCopied(high: number, copied: boolean): number {
  return (copied ? high | COPIED : high & ~COPIED) >>> 0;
}

/** Whether an L1 entry has bits set that the specification reserves. */
export function hasReservedL1Bits(low: number, high: number): boolean {
  return (low & RESERVED_LOW) !== 0 || (high & L1_RESERVED_HIGH) !== 0;
}

/** The same of an L2 entry's descriptor; compressed ones have no such bits. */
export function hasReservedL2Bits(geometry: Geometry, low: number, high: number): boolean {
  if (isCompressed(high)) return false;
  // Subclusters have their own bits for zeroes.
  const reservedLow = geometry.extendedL2 ? RESERVED_LOW : RESERVED_LOW & ~ZERO;
  return (low & reservedLow) !== 0 || (high & L2_RESERVED_HIGH) !== 0;
}

/** The same whatever the version and kind of entries: bit 0 has a meaning in some. */
export function hasUnusedL2Bits(low: number, high: number): boolean {
  return (low & RESERVED_LOW & ~ZERO) !== 0 || (high & L2_RESERVED_HIGH) !== 0;
}

export function isCompressed(high: number): boolean {
  return (high & COMPRESSED) !== 0;
}

/** Decodes 8-byte entries. `externalData`: the guest clusters lie in an external data file. */
export function standardDecoder(geometry: Geometry, externalData: boolean): DecodePiece {
  const { clusterSize, version } = geometry;
  return (words, at, within, piece) => {
    const low = words[at]!;
    const high = words[at + 1]!;
    piece.problem = null;
    piece.copied = isCopied(high);
    piece.length = clusterSize - within;
    if (isCompressed(high)) {
      decodeCompressed(geometry, externalData, low, high, piece);
      return;
    }
    const host = hostOffsetOf(low, high);
    piece.hasHost = host !== 0;
    piece.hostOffset = host === 0 ? 0 : host + within;
    if (host % clusterSize !== 0) piece.problem = unaligned(host, clusterSize);
    if ((low & ZERO) !== 0) {
      piece.kind = EXTENT.ZERO;
      if (version < 3) piece.problem = 'zero cluster in a version 2 image';
    } else if (isAllocated(host, high, externalData)) {
      piece.kind = EXTENT.DATA;
      piece.hasHost = true;
      piece.hostOffset = host + within;
    } else {
      piece.kind = EXTENT.UNALLOCATED;
    }
  };
}

/** Offset 0 means unallocated, but in a data file, where the first cluster lies there. */
export function isAllocated(host: number, high: number, externalData: boolean): boolean {
  return host !== 0 || (externalData && isCopied(high));
}

export function unaligned(host: number, clusterSize: number): string {
  return `cluster offset 0x${host.toString(16)} is not a multiple of ${clusterSize}`;
}

/** A compressed cluster's descriptor: offset below bit x, further sectors from x to 61. */
export function decodeCompressed(
  geometry: Geometry,
  externalData: boolean,
  low: number,
  high: number,
  piece: Piece,
): void {
  // 17 to 29: the offset ends in the high half.
  const sectorsShift = geometry.compressedOffsetBits - 32;
  const offsetHigh = high & ((1 << sectorsShift) - 1);
  const sectors = (high & 0x3fff_ffff) >>> sectorsShift;
  const hostOffset = offsetHigh * TWO_32 + low;
  piece.kind = EXTENT.COMPRESSED;
  piece.hasHost = true;
  piece.hostOffset = hostOffset;
  piece.hostLength = (sectors + 1) * COMPRESSED_SECTOR_SIZE - (hostOffset % COMPRESSED_SECTOR_SIZE);
  if (externalData) piece.problem = 'compressed cluster in an image with an external data file';
  else if (hostOffset > Number.MAX_SAFE_INTEGER / 2) {
    piece.problem = `compressed cluster at impossible offset ${hostOffset}`;
  }
}

/**
 * The entry of a cluster whose `length` compressed bytes lie at `hostOffset`; null where no entry can
 * say that.
 */
export function compressedEntry(
  { compressedOffsetBits }: Geometry,
  hostOffset: number,
  length: number,
): { low: number; high: number } | null {
  if (hostOffset + length > 2 ** compressedOffsetBits) return null;
  const first = Math.floor(hostOffset / COMPRESSED_SECTOR_SIZE);
  const sectors = Math.floor((hostOffset + length - 1) / COMPRESSED_SECTOR_SIZE) - first;
  const place = Math.floor(hostOffset / TWO_32) + sectors * 2 ** (compressedOffsetBits - 32);
  return { low: hostOffset % TWO_32, high: (place | COMPRESSED) >>> 0 };
}

/**
 * Whether the entry has a host cluster of its own, which can be written to: data, or set aside for a
 * zero cluster.
 */
export function ownsHost(low: number, high: number): boolean {
  return isCopied(high) && !isCompressed(high) && hostOffsetOf(low, high) !== 0;
}

/** The high half of an entry for a host cluster, or of an L1 entry for a table, of its own. */
export function copiedHigh(hostOffset: number): number {
  return (Math.floor(hostOffset / TWO_32) | COPIED) >>> 0;
}

/** The low half of an entry for a host offset; `zero`: the cluster reads as zeroes. */
export function hostLow(hostOffset: number, zero = false): number {
  return (hostOffset % TWO_32) + (zero ? ZERO : 0);
}

/** Whether a standard entry says that the cluster reads as zeroes. */
export function isZero(low: number): boolean {
  return (low & ZERO) !== 0;
}

/** An entry's halves, or an L1 entry's, with another host offset in place of its own. */
export function withHostOffset(low: number, high: number, host: number): [number, number] {
  const kept = high & ~OFFSET_HIGH;
  return [((low & ~OFFSET_LOW) | (host % TWO_32)) >>> 0, (kept | Math.floor(host / TWO_32)) >>> 0];
}

/** Where a compressed entry's data begins. */
export function compressedOffsetOf(geometry: Geometry, low: number, high: number): number {
  const mask = 2 ** (geometry.compressedOffsetBits - 32) - 1;
  return (high & mask) * TWO_32 + low;
}

/** A compressed entry's halves with its data elsewhere, at the same place within a sector. */
export function withCompressedOffset(
  geometry: Geometry,
  high: number,
  offset: number,
): [number, number] {
  const mask = 2 ** (geometry.compressedOffsetBits - 32) - 1;
  return [offset % TWO_32, ((high & ~mask) | Math.floor(offset / TWO_32)) >>> 0];
}

/** An entry as one number. */
export function entryValue(low: number, high: number): bigint {
  return (BigInt(high) << 32n) | BigInt(low);
}

/** Sizes and reserved bits that tell an entry in order of a standard cluster from all others. */
export function plainMasks({ clusterSize }: Geometry): { low: number; high: number } {
  return { low: clusterSize - 1, high: COMPRESSED | L2_RESERVED_HIGH };
}
