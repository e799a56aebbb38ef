/**
 * The structs of a qcow2 file, version 2 and 3, as docs/interop/qcow2.txt of QEMU lays them out, and
 * the limits that QEMU sets. All numbers are big-endian; offsets and sizes are bytes.
 */
import { bits64, bytes, struct, u16, u32, u64, u8 } from '../../codec/struct.js';

/** 'QFI\xfb' */
export const QCOW2_MAGIC = 0x514649fb;
/** In its place while an image is being filled: nobody takes the file for one. */
export const UNFINISHED_MAGIC = 0;

/** The header's first 72 bytes: all of version 2's. */
export const HEADER = struct('QCowHeader', 'big', {
  magic: u32,
  version: u32,
  backingFileOffset: u64,
  backingFileSize: u32,
  clusterBits: u32,
  size: u64,
  cryptMethod: u32,
  l1Size: u32,
  l1TableOffset: u64,
  refcountTableOffset: u64,
  refcountTableClusters: u32,
  nbSnapshots: u32,
  snapshotsOffset: u64,
});

/** Version 3's header goes on with these, at byte 72. */
export const HEADER_V3 = struct('QCowHeaderV3', 'big', {
  incompatibleFeatures: bits64,
  compatibleFeatures: bits64,
  autoclearFeatures: bits64,
  refcountOrder: u32,
  headerLength: u32,
});

/** The least `headerLength` of version 3: up to and with that field. */
export const HEADER_V3_LENGTH = HEADER.size + HEADER_V3.size;
/** A byte, where `headerLength` reaches that far. */
export const COMPRESSION_TYPE_OFFSET = 104;

export const HEADER_EXTENSION = struct('Qcow2 header extension', 'big', {
  type: u32,
  length: u32,
});

export const EXTENSION_TYPE = {
  END: 0,
  BACKING_FORMAT: 0xe2792aca,
  FEATURE_TABLE: 0x6803f857,
  BITMAPS: 0x23852875,
  CRYPTO_HEADER: 0x0537be77,
  DATA_FILE: 0x44415441,
} as const;

export const FEATURE_NAME = struct('Qcow2 feature name', 'big', {
  type: u8,
  bit: u8,
  name: bytes(46),
});

export const BITMAPS_EXTENSION = struct('Qcow2BitmapHeaderExt', 'big', {
  nbBitmaps: u32,
  reserved: u32,
  bitmapDirectorySize: u64,
  bitmapDirectoryOffset: u64,
});

export const CRYPTO_HEADER_EXTENSION = struct('Qcow2CryptoHeaderExtension', 'big', {
  offset: u64,
  length: u64,
});

export const BITMAP_DIRECTORY_ENTRY = struct('Qcow2BitmapDirEntry', 'big', {
  bitmapTableOffset: u64,
  bitmapTableSize: u32,
  flags: u32,
  type: u8,
  granularityBits: u8,
  nameSize: u16,
  extraDataSize: u32,
});

export const SNAPSHOT_HEADER = struct('QCowSnapshotHeader', 'big', {
  l1TableOffset: u64,
  l1Size: u32,
  idStrSize: u16,
  nameSize: u16,
  dateSec: u32,
  dateNsec: u32,
  vmClockNsec: bits64,
  vmStateSize: u32,
  extraDataSize: u32,
});

/** A snapshot's extra data, each field there only where `extraDataSize` reaches its end. */
export const SNAPSHOT_EXTRA = struct('QCowSnapshotExtraData', 'big', {
  vmStateSizeLarge: u64,
  diskSize: u64,
  icount: bits64,
});

/** Bits of `incompatibleFeatures`. */
export const INCOMPATIBLE = {
  DIRTY: 0,
  CORRUPT: 1,
  DATA_FILE: 2,
  COMPRESSION: 3,
  EXTENDED_L2: 4,
} as const;

/** Bits of `compatibleFeatures`. */
export const COMPATIBLE = { LAZY_REFCOUNTS: 0 } as const;

/** Bits of `autoclearFeatures`. */
export const AUTOCLEAR = { BITMAPS: 0, DATA_FILE_RAW: 1 } as const;

export const CRYPT_METHOD = { NONE: 0, AES: 1, LUKS: 2 } as const;
export const COMPRESSION_TYPE = { ZLIB: 0, ZSTD: 1 } as const;

/** QEMU's limits. */
export const LIMIT = {
  MIN_CLUSTER_BITS: 9,
  MAX_CLUSTER_BITS: 21,
  MAX_BACKING_NAME: 1023,
  MAX_REFCOUNT_ORDER: 6,
  MAX_REFCOUNT_TABLE_SIZE: 8 << 20,
  MAX_L1_SIZE: 32 << 20,
  MAX_SNAPSHOTS: 65536,
  MAX_SNAPSHOT_TABLE_SIZE: 64 << 20,
  MAX_SNAPSHOT_EXTRA_DATA: 1024,
  MAX_BITMAPS: 65535,
  MAX_BITMAP_DIRECTORY_SIZE: 1024 * 65535,
  MIN_EXTENDED_L2_CLUSTER_BITS: 14,
} as const;
