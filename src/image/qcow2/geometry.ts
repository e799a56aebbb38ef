/** The sizes that follow from a header, and the conversions between them: nowhere else. */
import { SLICE_SIZE } from '../../shared/slice-cache.js';

/** Subclusters of a cluster with extended L2 entries. */
export const SUBCLUSTERS = 32;

/** All sizes are bytes unless named otherwise. */
export interface Geometry {
  readonly version: number;
  readonly clusterBits: number;
  readonly clusterSize: number;
  /** Whether L2 entries are 16 bytes with a bitmap of 32 subclusters. */
  readonly extendedL2: boolean;
  readonly subclusterSize: number;
  /** Bytes of an L2 entry: 8, or 16 with subclusters. */
  readonly l2EntrySize: number;
  /** Entries of an L2 table. */
  readonly l2Entries: number;
  /** Guest bytes that one L2 table maps. */
  readonly l2Coverage: number;
  /** Bytes of a slice of an L1 or L2 table in the cache. */
  readonly sliceSize: number;
  readonly refcountBits: number;
  /** How many low bits of a compressed L2 entry are the host offset. */
  readonly compressedOffsetBits: number;
}

export interface GeometryInput {
  readonly version: number;
  readonly clusterBits: number;
  readonly extendedL2: boolean;
  readonly refcountOrder: number;
}

export function geometryOf(input: GeometryInput): Geometry {
  const clusterSize = 2 ** input.clusterBits;
  const l2EntrySize = input.extendedL2 ? 16 : 8;
  const l2Entries = clusterSize / l2EntrySize;
  return {
    version: input.version,
    clusterBits: input.clusterBits,
    clusterSize,
    extendedL2: input.extendedL2,
    subclusterSize: input.extendedL2 ? clusterSize / SUBCLUSTERS : clusterSize,
    l2EntrySize,
    l2Entries,
    l2Coverage: l2Entries * clusterSize,
    sliceSize: Math.min(clusterSize, SLICE_SIZE),
    refcountBits: 2 ** input.refcountOrder,
    compressedOffsetBits: 62 - (input.clusterBits - 8),
  };
}

/** Entries that an L1 table needs for a disk of `size` bytes. */
export function l1EntriesFor(geometry: Geometry, size: number): number {
  return Math.ceil(size / geometry.l2Coverage);
}

/** Where VM state lies in what an L1 table maps: behind a disk of `size` bytes, from the next L2 table on. */
export function vmStateStart(geometry: Geometry, size: number): number {
  return l1EntriesFor(geometry, size) * geometry.l2Coverage;
}
