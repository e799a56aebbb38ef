/**
 * Reading and validating a qcow2 header: nothing past this file sees a field that breaks a limit.
 * Messages are QEMU's where it has one, so that scripts that know them keep working.
 */
import { ImageError, type ErrnoName } from '../../errors.js';
import { isAligned } from '../../codec/bits.js';
import type { Storage } from '../../storage/storage.js';
import { SECTOR_SIZE } from '../extent.js';
import { readUpTo } from '../read-bytes.js';
import { type Extensions, readExtensions } from './extensions.js';
import { hasBit, refuseUnknownFeatures } from './features.js';
import { type Geometry, geometryOf, l1EntriesFor } from './geometry.js';
import {
  AUTOCLEAR,
  COMPRESSION_TYPE,
  COMPRESSION_TYPE_OFFSET,
  CRYPT_METHOD,
  HEADER,
  HEADER_V3,
  HEADER_V3_LENGTH,
  INCOMPATIBLE,
  LIMIT,
  QCOW2_MAGIC,
  SNAPSHOT_HEADER,
  UNFINISHED_MAGIC,
} from './layout.js';

const MAX_OFFSET = Number.MAX_SAFE_INTEGER;

/** A valid header. Offsets and sizes are bytes; plain data, so that threads can be given it. */
export interface Qcow2Header {
  readonly version: number;
  readonly geometry: Geometry;
  /** The disk's size: whole sectors, as QEMU shows it. */
  readonly size: number;
  readonly cryptMethod: number;
  readonly l1Size: number;
  readonly l1TableOffset: number;
  readonly refcountTableOffset: number;
  readonly refcountTableClusters: number;
  readonly nbSnapshots: number;
  readonly snapshotsOffset: number;
  readonly incompatibleFeatures: bigint;
  readonly compatibleFeatures: bigint;
  readonly autoclearFeatures: bigint;
  readonly headerLength: number;
  readonly compressionType: number;
  readonly backingFile: string | null;
  readonly extensions: Extensions;
}

type FixedFields = ReturnType<typeof HEADER.read> & ReturnType<typeof HEADER_V3.read>;

/**
 * How much must be right: for use; for a check, which looks at tables for itself; or for filling an image
 * that has no magic yet; or either of these, of an image that is open already.
 */
export type HeaderUse = 'use' | 'check' | 'fill' | 'open';

/** Reads the header of the image in `storage`. Throws an ImageError that names what is wrong. */
export function readHeader(storage: Storage, use: HeaderUse = 'use'): Qcow2Header {
  const fixed = readFixedFields(storage, use);
  const clusterSize = 2 ** fixed.clusterBits;
  const cluster = readUpTo(storage, 0, clusterSize);
  const { view } = cluster;
  checkPlaces(fixed, clusterSize);
  if (fixed.headerLength > cluster.length) {
    throw invalid('qcow2 header lies past the end of the file', `${fixed.headerLength} bytes`);
  }
  const extensionsEnd = fixed.backingFileOffset === 0 ? clusterSize : fixed.backingFileOffset;
  const extensions = readExtensions(view, fixed.headerLength, extensionsEnd);
  refuseUnknownFeatures(fixed.incompatibleFeatures, extensions.featureNames);
  const geometry = geometryFor(fixed);
  const compressionType =
    fixed.headerLength > COMPRESSION_TYPE_OFFSET ? view.getUint8(COMPRESSION_TYPE_OFFSET) : 0;
  checkCompressionType(fixed, compressionType);
  checkTables(fixed, geometry, use);
  return {
    ...fixed,
    geometry,
    // QEMU counts in sectors of 512 bytes and drops a partial last one.
    size: fixed.size - (fixed.size % SECTOR_SIZE),
    compressionType,
    backingFile: readBackingName(cluster.bytes, fixed, clusterSize),
    extensions,
  };
}

function isMagic(magic: number, use: HeaderUse): boolean {
  if (magic === UNFINISHED_MAGIC) return use === 'fill' || use === 'open';
  return magic === QCOW2_MAGIC && use !== 'fill';
}

function readFixedFields(storage: Storage, use: HeaderUse): FixedFields {
  const { view, length } = readUpTo(storage, 0, HEADER_V3_LENGTH);
  if (length < HEADER.size || !isMagic(HEADER.get(view, 0, 'magic'), use)) {
    throw invalid('Image is not in qcow2 format');
  }
  const header = HEADER.read(view, 0);
  if (header.version < 2 || header.version > 3) {
    throw new ImageError('unsupported', 'ENOTSUP', `Unsupported qcow2 version ${header.version}`, {
      limit: 'known: 2 and 3',
    });
  }
  if (header.clusterBits < LIMIT.MIN_CLUSTER_BITS || header.clusterBits > LIMIT.MAX_CLUSTER_BITS) {
    throw invalid(
      `Unsupported cluster size: 2^${header.clusterBits}`,
      `at least 2^${LIMIT.MIN_CLUSTER_BITS}, at most 2^${LIMIT.MAX_CLUSTER_BITS}`,
    );
  }
  if (header.version === 2) {
    return {
      ...header,
      incompatibleFeatures: 0n,
      compatibleFeatures: 0n,
      autoclearFeatures: 0n,
      refcountOrder: 4,
      headerLength: HEADER.size,
    };
  }
  if (length < HEADER_V3_LENGTH) throw invalid('qcow2 header too short', `${length} bytes`);
  return { ...header, ...HEADER_V3.read(view, HEADER.size) };
}

/** What must lie within the first cluster does. */
function checkPlaces(fixed: FixedFields, clusterSize: number): void {
  const { headerLength, backingFileOffset } = fixed;
  if (fixed.version >= 3 && headerLength < HEADER_V3_LENGTH) {
    throw invalid('qcow2 header too short', `${headerLength} bytes, at least ${HEADER_V3_LENGTH}`);
  }
  if (headerLength > clusterSize) {
    throw invalid('qcow2 header exceeds cluster size', `${headerLength} > ${clusterSize} bytes`);
  }
  if (backingFileOffset > clusterSize) {
    throw invalid('Invalid backing file offset', `${backingFileOffset}, at most ${clusterSize}`);
  }
}

function geometryFor(fixed: FixedFields): Geometry {
  const extendedL2 = hasBit(fixed.incompatibleFeatures, INCOMPATIBLE.EXTENDED_L2);
  if (extendedL2 && fixed.clusterBits < LIMIT.MIN_EXTENDED_L2_CLUSTER_BITS) {
    throw invalid(
      'Cluster size is too small for extended L2 entries',
      `2^${fixed.clusterBits}, at least 2^${LIMIT.MIN_EXTENDED_L2_CLUSTER_BITS}`,
    );
  }
  if (fixed.refcountOrder > LIMIT.MAX_REFCOUNT_ORDER) {
    throw invalid(
      'Reference count entry width too large; may not exceed 64 bits',
      `refcount_order ${fixed.refcountOrder}, at most ${LIMIT.MAX_REFCOUNT_ORDER}`,
    );
  }
  const { version, clusterBits, refcountOrder } = fixed;
  return geometryOf({ version, clusterBits, extendedL2, refcountOrder });
}

function checkCompressionType(fixed: FixedFields, compressionType: number): void {
  if (compressionType > COMPRESSION_TYPE.ZSTD) {
    const message = `qcow2: unknown compression type: ${compressionType}`;
    throw new ImageError('unsupported', 'ENOTSUP', message);
  }
  const flagged = hasBit(fixed.incompatibleFeatures, INCOMPATIBLE.COMPRESSION);
  if (flagged !== (compressionType !== COMPRESSION_TYPE.ZLIB)) {
    const must = flagged ? 'must not be set' : 'must be set';
    throw invalid(
      `qcow2: Compression type incompatible feature bit ${must}`,
      `compression_type ${compressionType}`,
    );
  }
}

function checkTables(fixed: FixedFields, geometry: Geometry, use: HeaderUse): void {
  const { clusterSize } = geometry;
  if (fixed.size > MAX_OFFSET) {
    throw tooLarge('Image is too big', `${fixed.size} bytes, at most ${MAX_OFFSET}`);
  }
  if (fixed.cryptMethod > CRYPT_METHOD.LUKS) {
    throw invalid(`Unsupported encryption method ${fixed.cryptMethod}`);
  }
  if (fixed.refcountTableClusters === 0 && use !== 'check') {
    throw invalid('Image does not contain a reference count table');
  }
  const refcountTableSize = fixed.refcountTableClusters * clusterSize;
  checkTable(
    geometry,
    'Reference count table',
    fixed.refcountTableOffset,
    refcountTableSize,
    LIMIT.MAX_REFCOUNT_TABLE_SIZE,
    use,
  );
  if (fixed.nbSnapshots > 0 && use !== 'check') {
    checkTable(
      geometry,
      'Snapshot table',
      fixed.snapshotsOffset,
      fixed.nbSnapshots * SNAPSHOT_HEADER.size,
      LIMIT.MAX_SNAPSHOTS * SNAPSHOT_HEADER.size,
    );
  }
  // As QEMU: where there is none, its offset must be one all the same.
  if (
    fixed.nbSnapshots === 0 &&
    use !== 'check' &&
    !isAligned(fixed.snapshotsOffset, clusterSize)
  ) {
    throw invalid('Snapshot table offset invalid', `0x${fixed.snapshotsOffset.toString(16)}`);
  }
  const l1Bytes = fixed.l1Size * 8;
  const needed = l1EntriesFor(geometry, fixed.size);
  if (l1Bytes > 0) {
    const { l1TableOffset } = fixed;
    checkTable(geometry, 'Active L1 table', l1TableOffset, l1Bytes, LIMIT.MAX_L1_SIZE, use);
  }
  if (fixed.l1Size < needed) {
    throw invalid('L1 table is too small', `${fixed.l1Size} entries, ${needed} needed`);
  }
}

/** A table's place and size: aligned, not over the header (for use), not longer than `limit` bytes. */
export function checkTable(
  geometry: Geometry,
  name: string,
  offset: number,
  size: number,
  limit: number,
  use: HeaderUse = 'use',
): void {
  if (size > limit) throw tooLarge(`${name} too large`, `${size} bytes, at most ${limit}`);
  const end = use === 'check' ? 2 ** 63 - 1024 : MAX_OFFSET;
  const isPlace = isAligned(offset, geometry.clusterSize) && offset + size <= end;
  if (!isPlace || (offset === 0 && use !== 'check')) {
    throw invalid(
      `${name} offset invalid`,
      `0x${offset.toString(16)}, must be a multiple of ${geometry.clusterSize} above 0`,
    );
  }
}

/** Refuses a header that says of a data file what it can only say where there is one. */
export function checkDataFile(header: Qcow2Header): void {
  const external = hasBit(header.incompatibleFeatures, INCOMPATIBLE.DATA_FILE);
  if (!external && hasBit(header.autoclearFeatures, AUTOCLEAR.DATA_FILE_RAW)) {
    throw invalid('data-file-raw requires a data file');
  }
}

function readBackingName(cluster: Buffer, fixed: FixedFields, clusterSize: number): string | null {
  const { backingFileOffset: offset, backingFileSize: size } = fixed;
  if (offset === 0) return null;
  const limit = Math.min(LIMIT.MAX_BACKING_NAME, clusterSize - offset);
  if (size > limit) throw invalid('Backing file name too long', `${size} bytes, at most ${limit}`);
  const name = cluster.subarray(offset, offset + size);
  if (name.length < size) throw invalid('Backing file name lies past the end of the file');
  return name.length === 0 ? null : name.toString();
}

function invalid(message: string, limit?: string, code: ErrnoName = 'EINVAL'): ImageError {
  return new ImageError('invalid', code, message, limit === undefined ? {} : { limit });
}

function tooLarge(message: string, limit: string): ImageError {
  return invalid(message, limit, 'EFBIG');
}
