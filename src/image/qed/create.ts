/** Making QED images: a header, and an empty L1 table. */
import { alignUp } from '../../codec/bits.js';
import { ImageError, invalid } from '../../errors.js';
import { SECTOR_SIZE } from '../extent.js';
import type { HeaderPlan } from '../header-file.js';
import {
  FEATURE,
  HEADER,
  isClusterSize,
  isTableSize,
  largestSize,
  LIMIT,
  MAGIC,
  MOST_BYTES,
} from './header.js';

/** Clusters of a table, where nothing is said. */
const DEFAULT_TABLE_SIZE = 4;
const LEAST_TABLE_SIZE = 2;

export interface QedOptions {
  /** Bytes. */
  readonly size: number;
  readonly clusterSize: number;
  /** Clusters. */
  readonly tableSize?: number | undefined;
  readonly backingFile?: string | undefined;
  readonly backingFormat?: string | undefined;
}

/** Throws an ImageError, in QEMU's words. */
export function planQed(options: QedOptions): HeaderPlan {
  const { clusterSize, tableSize = DEFAULT_TABLE_SIZE, backingFile, backingFormat } = options;
  if (!isClusterSize(clusterSize)) {
    const range = `[${LIMIT.MIN_CLUSTER}, ${LIMIT.MAX_CLUSTER}]`;
    throw invalid(`QED cluster size must be within range ${range} and power of 2`);
  }
  if (!isTableSize(tableSize)) {
    throw invalid(`QED table size must be within range [1, ${LIMIT.MAX_TABLE}] and power of 2`);
  }
  // It makes them, and then opens none: it looks for a table's end behind its first cluster.
  if (tableSize < LEAST_TABLE_SIZE) {
    const message = `QED table size ${tableSize} makes images that QEMU cannot open`;
    throw new ImageError('unsupported', 'EINVAL', message, {
      limit: `table_size=${LEAST_TABLE_SIZE} at least`,
    });
  }
  const most = mostBytes(clusterSize * tableSize, clusterSize);
  const size = alignUp(options.size, SECTOR_SIZE);
  if (size > most) {
    const limit = `less than ${most} bytes`;
    throw invalid(`QED image size must be a non-zero multiple of cluster size and ${limit}`);
  }
  const name = Buffer.from(backingFile ?? '');
  if (name.length > LIMIT.NAME) throw invalid('Backing file name too long');
  const isRaw = backingFile !== undefined && backingFormat === 'raw';
  const features =
    (backingFile === undefined ? 0n : FEATURE.BACKING_FILE) | (isRaw ? FEATURE.BACKING_RAW : 0n);
  const header = Buffer.alloc(HEADER.size + name.length);
  HEADER.write(new DataView(header.buffer, header.byteOffset, header.length), 0, {
    magic: MAGIC,
    clusterSize,
    tableSize,
    headerSize: 1,
    features,
    l1TableOffset: clusterSize,
    imageSize: size,
    backingNameOffset: backingFile === undefined ? 0 : HEADER.size,
    backingNameSize: name.length,
  });
  name.copy(header, HEADER.size);
  return { fileSize: clusterSize * (1 + tableSize), header };
}

/** QEMU counts in 64 bits: where tables map more, it takes that for nothing, and opens no such image. */
function mostBytes(tableBytes: number, clusterSize: number): number {
  const mapped = largestSize(tableBytes, clusterSize);
  return mapped >= 2 ** 64 ? 0 : Math.min(mapped, MOST_BYTES);
}
