/** The header of QED images, as the specification (docs/interop/qed_spec.txt) lays it out. */
import { alignDown, isAligned } from '../../codec/bits.js';
import { bits64, bytes, struct, u32, u64 } from '../../codec/struct.js';
import { ImageError, invalid } from '../../errors.js';
import type { MutableStorage, Storage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import { SECTOR_SIZE } from '../extent.js';
import type { NamedBacking } from '../format.js';
import type { BackingName } from '../writer.js';
import { readExactly } from '../read-bytes.js';

export const HEADER = struct('QED header', 'little', {
  magic: bytes(4),
  clusterSize: u32,
  /** Clusters of a table. */
  tableSize: u32,
  /** Clusters of the header. */
  headerSize: u32,
  features: bits64,
  compatFeatures: bits64,
  autoclearFeatures: bits64,
  l1TableOffset: u64,
  imageSize: u64,
  backingNameOffset: u32,
  backingNameSize: u32,
});

export const MAGIC = Buffer.from('QED\0', 'latin1');

export const FEATURE = { BACKING_FILE: 1n, NEED_CHECK: 2n, BACKING_RAW: 4n } as const;
const KNOWN = FEATURE.BACKING_FILE | FEATURE.NEED_CHECK | FEATURE.BACKING_RAW;

export const LIMIT = {
  MIN_CLUSTER: 1 << 12,
  MAX_CLUSTER: 1 << 26,
  MAX_TABLE: 16,
  NAME: 1023,
} as const;
export const ENTRY_SIZE = 8;
/** An entry that says that the cluster is zeroes. */
export const ZERO_CLUSTER = 1;
/** Of a disk. */
export const MOST_BYTES = Number.MAX_SAFE_INTEGER;

/** What the header tells. Sizes and offsets are bytes. */
export interface QedHeader {
  readonly clusterSize: number;
  /** Of each table. */
  readonly tableBytes: number;
  readonly headerBytes: number;
  readonly features: bigint;
  readonly l1TableOffset: number;
  readonly size: number;
  readonly backing: NamedBacking | null;
}

/** Bytes of the largest disk that its tables can map. */
export function largestDisk({ tableBytes, clusterSize }: QedHeader): number {
  return alignDown(Math.min(largestSize(tableBytes, clusterSize), MOST_BYTES), SECTOR_SIZE);
}

/** What tables of so many bytes can map. */
export function largestSize(tableBytes: number, clusterSize: number): number {
  return (tableBytes / ENTRY_SIZE) ** 2 * clusterSize;
}

export function isClusterSize(value: number): boolean {
  return isPowerOf2(value, LIMIT.MIN_CLUSTER, LIMIT.MAX_CLUSTER);
}

/** `value`: clusters. */
export function isTableSize(value: number): boolean {
  return isPowerOf2(value, 1, LIMIT.MAX_TABLE);
}

/** Changes the size of the disk in the header, in one write. */
export function writeSize(storage: MutableStorage, size: number): void {
  const buffer = new IoBuffer(u64.size);
  u64.write(buffer.view, 0, size, true);
  storage.write(buffer, 0, u64.size, HEADER.offsets.imageSize);
}

/**
 * Names another backing file, or none, in one write: the name lies behind the fields. Not durable by itself.
 * Throws ENOSPC where it is too long.
 */
export function writeBacking(storage: MutableStorage, backing: BackingName | null): void {
  const name = Buffer.from(backing?.file ?? '');
  if (name.length > LIMIT.NAME) {
    const message = 'the name of the backing file is too long';
    throw new ImageError('invalid', 'ENOSPC', message, { limit: `at most ${LIMIT.NAME} bytes` });
  }
  const buffer = new IoBuffer(HEADER.size + name.length);
  buffer.bytes.set(readExactly(storage, 0, HEADER.size, 'QED header').bytes);
  const header = HEADER.read(buffer.view, 0);
  const others = header.features & ~(FEATURE.BACKING_FILE | FEATURE.BACKING_RAW);
  const own = backing === null ? 0n : FEATURE.BACKING_FILE;
  const raw = backing?.format === 'raw' ? FEATURE.BACKING_RAW : 0n;
  HEADER.write(buffer.view, 0, {
    ...header,
    features: others | own | raw,
    backingNameOffset: backing === null ? 0 : HEADER.size,
    backingNameSize: name.length,
  });
  name.copy(buffer.bytes, HEADER.size);
  storage.write(buffer, 0, buffer.length, 0);
}

/** Sets or clears the need-check flag, in one write. Not durable by itself. */
export function setNeedCheck(storage: MutableStorage, value: boolean): void {
  const position = HEADER.offsets.features;
  const buffer = readExactly(storage, position, bits64.size, 'QED header');
  const features = buffer.view.getBigUint64(0, true);
  const others = features & ~FEATURE.NEED_CHECK;
  buffer.view.setBigUint64(0, value ? others | FEATURE.NEED_CHECK : others, true);
  storage.write(buffer, 0, bits64.size, position);
}

/** Says that features which are not known do not hold any more: the image is written to. None is known. */
export function clearAutoclear(storage: MutableStorage): void {
  const position = HEADER.offsets.autoclearFeatures;
  const buffer = readExactly(storage, position, bits64.size, 'QED header');
  if (buffer.view.getBigUint64(0, true) === 0n) return;
  buffer.bytes.fill(0);
  storage.write(buffer, 0, bits64.size, position);
  storage.flush();
}

/** Reads and checks the header. Throws an ImageError. `unfinished`: it has no magic yet. */
export function readHeader(storage: Storage, unfinished = false): QedHeader {
  const { view } = readExactly(storage, 0, HEADER.size, 'QED header');
  const raw = HEADER.read(view, 0);
  if (!unfinished && !MAGIC.equals(raw.magic)) {
    throw invalid('Image not in QED format');
  }
  const unknown = raw.features & ~KNOWN;
  if (unknown !== 0n) {
    const message = `Unsupported QED features: ${unknown.toString(16)}`;
    throw new ImageError('unsupported', 'ENOTSUP', message);
  }
  const { clusterSize, tableSize, headerSize, l1TableOffset, imageSize } = raw;
  if (!isClusterSize(clusterSize)) {
    throw invalid(`QED cluster size ${clusterSize} is invalid`);
  }
  if (!isTableSize(tableSize)) {
    throw invalid(`QED table size ${tableSize} is invalid`);
  }
  const tableBytes = clusterSize * tableSize;
  const headerBytes = clusterSize * headerSize;
  if (headerSize === 0) throw invalid('QED header size 0 is invalid');
  checkSize(imageSize, clusterSize, tableBytes);
  const inFile = l1TableOffset >= headerBytes && l1TableOffset + tableBytes <= storage.size();
  if (!inFile || !isAligned(l1TableOffset, clusterSize)) {
    throw invalid(`QED L1 table offset ${l1TableOffset} is invalid`);
  }
  const backing = readBacking(storage, raw, headerBytes);
  return {
    clusterSize,
    tableBytes,
    headerBytes,
    features: raw.features,
    l1TableOffset,
    size: imageSize,
    backing,
  };
}

function checkSize(size: number, clusterSize: number, tableBytes: number): void {
  if (size > Math.min(largestSize(tableBytes, clusterSize), MOST_BYTES)) {
    throw invalid(`QED image size ${size} is too large`);
  }
  if (!isAligned(size, SECTOR_SIZE)) throw invalid(`QED image size ${size} is no multiple of 512`);
}

function readBacking(
  storage: Storage,
  raw: ReturnType<typeof HEADER.read>,
  headerBytes: number,
): NamedBacking | null {
  if ((raw.features & FEATURE.BACKING_FILE) === 0n) return null;
  const { backingNameOffset: offset, backingNameSize: size } = raw;
  if (offset + size > headerBytes || size > LIMIT.NAME) {
    throw invalid('QED backing file name does not lie in the header');
  }
  const name = readExactly(storage, offset, size, 'backing file name').bytes.toString('utf8');
  return { name, format: (raw.features & FEATURE.BACKING_RAW) === 0n ? null : 'raw' };
}

function isPowerOf2(value: number, least: number, most: number): boolean {
  return value >= least && value <= most && Number.isInteger(Math.log2(value));
}
