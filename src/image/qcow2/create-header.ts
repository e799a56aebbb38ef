/** The first cluster of a new image: header, extensions, the backing file's name. */
import { ERRNO, ImageError } from '../../errors.js';
import { strerror } from '../../sys/libc.js';
import type { Qcow2Layout } from './create-layout.js';
import type { Qcow2Options } from './create-options.js';
import { type HeaderExtension, headerBytes } from './header-rewrite.js';
import {
  AUTOCLEAR,
  COMPATIBLE,
  COMPRESSION_TYPE,
  COMPRESSION_TYPE_OFFSET,
  CRYPT_METHOD,
  CRYPTO_HEADER_EXTENSION,
  EXTENSION_TYPE,
  FEATURE_NAME,
  HEADER,
  HEADER_V3,
  INCOMPATIBLE,
  LIMIT,
  QCOW2_MAGIC,
} from './layout.js';

/** Bytes of a cluster. */
const MOST_WITHOUT_NAMES = 4096;

/** With the compression type and its padding. */
const V3_LENGTH = 112;

/** What older programs call the features in their errors: QEMU's names, as it writes them. */
const FEATURE_NAMES: readonly [type: number, bit: number, name: string][] = [
  [0, INCOMPATIBLE.DIRTY, 'dirty bit'],
  [0, INCOMPATIBLE.CORRUPT, 'corrupt bit'],
  [0, INCOMPATIBLE.DATA_FILE, 'external data file'],
  [0, INCOMPATIBLE.COMPRESSION, 'compression type'],
  [0, INCOMPATIBLE.EXTENDED_L2, 'extended L2 entries'],
  [1, COMPATIBLE.LAZY_REFCOUNTS, 'lazy refcounts'],
  [2, AUTOCLEAR.BITMAPS, 'bitmaps'],
  [2, AUTOCLEAR.DATA_FILE_RAW, 'raw external data'],
];

/** The header of the image with these options and that layout. Throws where a name is too long. */
export function encodeHeader(options: Qcow2Options, layout: Qcow2Layout): Buffer {
  const { backingFile, backingFormat, dataFile } = options;
  const { clusterSize, version } = layout.geometry;
  const name = Buffer.from(backingFile ?? '');
  const fields = encodeFields(options, layout);
  const extensions: HeaderExtension[] = [];
  if (backingFormat !== undefined && name.length > 0) {
    extensions.push({ type: EXTENSION_TYPE.BACKING_FORMAT, data: Buffer.from(backingFormat) });
  }
  if (dataFile !== undefined) {
    extensions.push({ type: EXTENSION_TYPE.DATA_FILE, data: Buffer.from(dataFile) });
  }
  if (layout.crypto !== null) {
    const data = Buffer.alloc(CRYPTO_HEADER_EXTENSION.size);
    const { at, size: length } = layout.crypto;
    const place = { offset: at * clusterSize, length };
    CRYPTO_HEADER_EXTENSION.write(
      new DataView(data.buffer, data.byteOffset, data.length),
      0,
      place,
    );
    extensions.push({ type: EXTENSION_TYPE.CRYPTO_HEADER, data });
  }
  const features = { type: EXTENSION_TYPE.FEATURE_TABLE, data: featureTable() };
  const parts = { fields, extensions, backingFile: name };
  // As QEMU: small clusters have no room to spare for the names of features.
  const wantsNames = version >= 3 && clusterSize > MOST_WITHOUT_NAMES;
  const full = headerBytes({ ...parts, extensions: [...extensions, features] });
  const bytes = wantsNames && full.length <= clusterSize ? full : headerBytes(parts);
  checkRoom(options, name, bytes.length, clusterSize);
  return bytes;
}

function checkRoom(
  { backingFormat, backingFile }: Qcow2Options,
  name: Buffer,
  length: number,
  clusterSize: number,
): void {
  const isLong = name.length > LIMIT.MAX_BACKING_NAME;
  if (!isLong && length <= clusterSize) return;
  const code = isLong ? 'EINVAL' : 'ENOSPC';
  const problem = strerror(ERRNO[code]);
  const message =
    name.length === 0
      ? `Could not create qcow2 header: ${problem}`
      : `Could not assign backing file '${backingFile}' with format '${backingFormat}': ${problem}`;
  throw new ImageError('invalid', code, message, {
    limit: isLong
      ? `a name of ${name.length} bytes, at most ${LIMIT.MAX_BACKING_NAME}`
      : `a header of ${length} bytes, at most ${clusterSize}`,
  });
}

function encodeFields(options: Qcow2Options, layout: Qcow2Layout): Buffer {
  const { geometry } = layout;
  const isV3 = geometry.version >= 3;
  const bytes = Buffer.alloc(isV3 ? V3_LENGTH : HEADER.size);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  HEADER.write(view, 0, {
    magic: QCOW2_MAGIC,
    version: geometry.version,
    clusterBits: geometry.clusterBits,
    size: layout.size,
    cryptMethod: cryptMethodOf(options),
    l1Size: layout.l1Size,
    l1TableOffset: layout.l1At * geometry.clusterSize,
    refcountTableOffset: layout.refcountTableAt * geometry.clusterSize,
    refcountTableClusters: layout.refcountTableClusters,
  });
  if (!isV3) return bytes;
  const zstd = options.compressionType === 'zstd';
  HEADER_V3.write(view, HEADER.size, {
    incompatibleFeatures:
      bitIf(options.dataFile !== undefined, INCOMPATIBLE.DATA_FILE) |
      bitIf(zstd, INCOMPATIBLE.COMPRESSION) |
      bitIf(geometry.extendedL2, INCOMPATIBLE.EXTENDED_L2),
    compatibleFeatures: bitIf(options.lazyRefcounts === true, COMPATIBLE.LAZY_REFCOUNTS),
    autoclearFeatures: bitIf(options.dataFileRaw === true, AUTOCLEAR.DATA_FILE_RAW),
    refcountOrder: Math.log2(geometry.refcountBits),
    headerLength: V3_LENGTH,
  });
  view.setUint8(COMPRESSION_TYPE_OFFSET, zstd ? COMPRESSION_TYPE.ZSTD : COMPRESSION_TYPE.ZLIB);
  return bytes;
}

function cryptMethodOf({ encryption }: Qcow2Options): number {
  if (encryption === undefined) return CRYPT_METHOD.NONE;
  return encryption.luks === null ? CRYPT_METHOD.AES : CRYPT_METHOD.LUKS;
}

function bitIf(set: boolean, bit: number): bigint {
  return set ? 1n << BigInt(bit) : 0n;
}

/** What a feature table extension holds. */
export function featureTable(): Buffer {
  const table = Buffer.alloc(FEATURE_NAMES.length * FEATURE_NAME.size);
  const view = new DataView(table.buffer, table.byteOffset, table.length);
  for (const [n, [type, bit, text]] of FEATURE_NAMES.entries()) {
    const name = Buffer.alloc(FEATURE_NAME.fields.name.size);
    name.write(text);
    FEATURE_NAME.write(view, n * FEATURE_NAME.size, { type, bit, name });
  }
  return table;
}
