/**
 * Extended L2 entries: 16 bytes, a standard descriptor and a bitmap of 32 subclusters. Bit i of the
 * bitmap's low half says that subcluster i is allocated, of its high half that it reads as zeroes.
 */
import { runOfBits } from '../../codec/bits.js';
import { EXTENT } from '../extent.js';
import type { Geometry } from './geometry.js';
import {
  decodeCompressed,
  type DecodePiece,
  hostOffsetOf,
  isAllocated,
  isCompressed,
  isCopied,
  unaligned,
} from './l2.js';

export function subclusterDecoder(geometry: Geometry, externalData: boolean): DecodePiece {
  const { clusterSize, subclusterSize } = geometry;
  return (words, at, within, piece) => {
    const low = words[at]!;
    const high = words[at + 1]!;
    piece.problem = null;
    piece.copied = isCopied(high);
    if (isCompressed(high)) {
      piece.length = clusterSize - within;
      decodeCompressed(geometry, externalData, low, high, piece);
      return;
    }
    const allocated = words[at + 2]!;
    const zero = words[at + 3]!;
    const host = hostOffsetOf(low, high);
    const hasHost = isAllocated(host, high, externalData);
    const index = Math.floor(within / subclusterSize);
    const run = Math.min(runOfBits(allocated, index), runOfBits(zero, index));
    piece.length = (index + run) * subclusterSize - within;
    piece.hasHost = hasHost;
    piece.hostOffset = hasHost ? host + within : 0;
    if (((zero >>> index) & 1) === 1) piece.kind = EXTENT.ZERO;
    else if (((allocated >>> index) & 1) === 1) piece.kind = EXTENT.DATA;
    else piece.kind = EXTENT.UNALLOCATED;
    if (host % clusterSize !== 0) piece.problem = unaligned(host, clusterSize);
    else if ((allocated & zero) !== 0) {
      piece.problem = 'subcluster both allocated and zero';
    } else if (!hasHost && allocated !== 0) {
      piece.problem = 'allocated subcluster of an unallocated cluster';
    }
  };
}

/** The bits of subclusters `first` to `end` - 1. */
export function subclusterMask(first: number, end: number): number {
  const below = (n: number): number => (n >= 32 ? 0xffff_ffff : (1 << n) - 1);
  return (below(end) & ~below(first)) >>> 0;
}
