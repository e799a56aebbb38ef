/** What lies at a place of a disk, and who tells it. Offsets and lengths are bytes. */
import type { Storage } from '../storage/storage.js';
import type { SectorCipher } from './crypto/cipher-key.js';

/** QEMU counts disks in sectors of so many bytes: a partial last one is dropped, or filled up. */
export const SECTOR_SIZE = 512;

/** The kinds of extent. */
export const EXTENT = {
  /** Bytes in a file: `storage` from `hostOffset` on. */
  DATA: 0,
  /** Reads as zeroes, whatever lies below. */
  ZERO: 1,
  /** Nothing in this layer: the backing file's bytes, or zeroes. */
  UNALLOCATED: 2,
  /** A part of one compressed cluster; its bytes come from `Mapping.decompress`. */
  COMPRESSED: 3,
} as const;

export type ExtentKind = (typeof EXTENT)[keyof typeof EXTENT];

/**
 * One run of bytes of the same kind. A mutable record that its owner uses again and again: the I/O
 * path makes no objects.
 */
export class Extent {
  kind: ExtentKind = EXTENT.UNALLOCATED;
  length = 0;
  /** DATA: the file with the bytes. */
  storage: Storage | null = null;
  /** DATA: where they begin there. COMPRESSED: where the compressed bytes begin. */
  hostOffset = 0;
  /** DATA: what its sectors are encrypted with; null where they are not. */
  cipher: SectorCipher | null = null;
  /** DATA, encrypted: where it begins, as its sectors are numbered. */
  cipherOffset = 0;
  /** COMPRESSED: at most so many compressed bytes. */
  hostLength = 0;
  /** COMPRESSED: how far into the cluster the extent begins. */
  skip = 0;
  /** ZERO, UNALLOCATED: whether host clusters are set aside for it. */
  preallocated = false;
  /** DATA: whether nobody else shares these host clusters: they may be written to in place. */
  copied = false;
}

/** The map of one layer's disk, or of one snapshot's. */
export interface Mapping {
  /** Size of the disk. */
  readonly size: number;

  /**
   * A file whose end lies within a unit of so many bytes reads as zeroes up to the unit's end; what
   * lies beyond is missing.
   */
  readonly unit: number;

  /**
   * Fills `extent` with what lies at `offset`: one kind, at least one byte, at most `length`. More
   * of the same kind may follow. `offset + length` is at most `size`.
   */
  map(offset: number, length: number, extent: Extent): void;

  /** The bytes of the cluster that a COMPRESSED extent is a part of; valid until the next call. */
  decompress(extent: Extent): Uint8Array;
}
