/**
 * Making new images: version 3, empty, as QEMU's tools make them. The file holds the header, the
 * refcount table, its blocks and the L1 table, in that order and without gaps.
 */
import { closeSync, constants, openSync, unlinkSync } from 'node:fs';
import { alignUp, divCeil } from '../../codec/bits.js';
import { type ErrnoName, ImageError } from '../../errors.js';
import { FileStorage } from '../../storage/file.js';
import type { MutableStorage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import { SECTOR_SIZE } from '../extent.js';
import { type Geometry, geometryOf, l1EntriesFor } from './geometry.js';
import {
  AUTOCLEAR,
  COMPATIBLE,
  EXTENSION_TYPE,
  FEATURE_NAME,
  HEADER,
  HEADER_EXTENSION,
  HEADER_V3,
  INCOMPATIBLE,
  LIMIT,
  QCOW2_MAGIC,
} from './layout.js';

export interface CreateOptions {
  /** The disk's size in bytes; rounded up to whole sectors of 512, as QEMU does. */
  readonly size: number;
  /** The backing file as the image is to name it: from the image's folder, or absolute. */
  readonly backingFile?: string | undefined;
  /** Its format, without which no backing file is taken: probing can be fooled. */
  readonly backingFormat?: string | undefined;
  /** Bytes, a power of two from 512 to 2 MiB; 64 KiB where it is not given. */
  readonly clusterSize?: number | undefined;
  /** Keep refcounts loosely, and rebuild them after a crash. */
  readonly lazyRefcounts?: boolean | undefined;
}

const VERSION = 3;
/** With the compression type and its padding, which are zero here: zlib. */
const HEADER_LENGTH = 112;
/** 16 bits, as wide as QEMU makes them. */
const REFCOUNT_ORDER = 4;
const REFCOUNT_BYTES = 2;
const ENTRY_SIZE = 8;
const DEFAULT_CLUSTER_SIZE = 65536;

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

/** Where everything goes. Offsets are bytes. */
interface Plan {
  readonly geometry: Geometry;
  readonly size: number;
  readonly l1Size: number;
  readonly l1TableOffset: number;
  readonly refcountTableClusters: number;
  readonly refcountBlocks: number;
  /** Of the whole file. */
  readonly clusters: number;
}

/**
 * Creates an image in a new file at `target`, readable by its owner alone, or in the empty file open
 * as that descriptor. A file that exists, and a link, is refused with EEXIST. Nothing is flushed.
 * Where it throws (an ImageError or a system's error), a file that it made is gone again.
 */
export function createOverlay(target: string | number, options: CreateOptions): void {
  if (typeof target === 'number') {
    formatImage(new FileStorage(target, `descriptor ${target}`), options);
    return;
  }
  // Before there is a file: most mistakes are found here.
  planOf(options);
  const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const fd = openSync(target, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    formatImage(new FileStorage(fd, target), options);
  } catch (error) {
    unlinkSync(target);
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** Writes an empty image into `storage`, which must be empty. Nothing is flushed. */
export function formatImage(storage: MutableStorage, options: CreateOptions): void {
  if (storage.size() !== 0) {
    throw invalid('EEXIST', `${storage.name}: not empty`, `${storage.size()} bytes`);
  }
  const plan = planOf(options);
  const { clusterSize } = plan.geometry;
  const header = headerOf(plan, options);
  // The L1 table is all zeroes: the file's growth makes it.
  storage.truncate(plan.clusters * clusterSize);
  writeRefcounts(storage, plan);
  // Last, so that a file that is not complete is no image.
  const buffer = new IoBuffer(header.length);
  buffer.bytes.set(header);
  storage.write(buffer, 0, buffer.length, 0);
}

function planOf(options: CreateOptions): Plan {
  const { clusterSize = DEFAULT_CLUSTER_SIZE } = options;
  const clusterBits = Math.log2(clusterSize);
  const fits = clusterBits >= LIMIT.MIN_CLUSTER_BITS && clusterBits <= LIMIT.MAX_CLUSTER_BITS;
  if (!fits || !Number.isInteger(clusterBits)) {
    const message = 'Cluster size must be a power of two between 512 and 2048k';
    throw invalid('EINVAL', message, `${clusterSize}`);
  }
  if (!Number.isSafeInteger(options.size) || options.size < 0) {
    throw invalid('EINVAL', `Invalid image size ${options.size}`);
  }
  const geometry = geometryOf({
    version: VERSION,
    clusterBits,
    extendedL2: false,
    refcountOrder: REFCOUNT_ORDER,
  });
  const size = alignUp(options.size, SECTOR_SIZE);
  const l1Size = l1EntriesFor(geometry, size);
  if (l1Size * ENTRY_SIZE > LIMIT.MAX_L1_SIZE) {
    const most = (LIMIT.MAX_L1_SIZE / ENTRY_SIZE) * geometry.l2Coverage;
    throw invalid(
      'EFBIG',
      `The image size ${size} is too large for clusters of ${clusterSize} bytes`,
      `at most ${most}: an L1 table of ${LIMIT.MAX_L1_SIZE} bytes`,
    );
  }
  const l1Clusters = divCeil(l1Size * ENTRY_SIZE, clusterSize);
  const places = refcountsFor(1 + l1Clusters, clusterSize);
  const l1At = places.clusters - l1Clusters;
  // As QEMU: no table, no place.
  return {
    geometry,
    size,
    l1Size,
    l1TableOffset: l1Size === 0 ? 0 : l1At * clusterSize,
    ...places,
  };
}

/** The refcount structures for `others` clusters and for themselves. */
function refcountsFor(others: number, clusterSize: number) {
  let refcountTableClusters = 1;
  let refcountBlocks = 1;
  for (;;) {
    const clusters = others + refcountTableClusters + refcountBlocks;
    const blocks = divCeil(clusters * REFCOUNT_BYTES, clusterSize);
    const tableClusters = divCeil(blocks * ENTRY_SIZE, clusterSize);
    if (blocks === refcountBlocks && tableClusters === refcountTableClusters) {
      return { refcountTableClusters, refcountBlocks, clusters };
    }
    // Both only grow, and by ever less.
    refcountBlocks = blocks;
    refcountTableClusters = tableClusters;
  }
}

function writeRefcounts(storage: MutableStorage, plan: Plan): void {
  const { clusterSize } = plan.geometry;
  const firstBlock = 1 + plan.refcountTableClusters;
  const table = new IoBuffer(plan.refcountBlocks * ENTRY_SIZE);
  for (let n = 0; n < plan.refcountBlocks; n++) {
    table.view.setBigUint64(n * ENTRY_SIZE, BigInt((firstBlock + n) * clusterSize));
  }
  // Blocks lie one behind the other: together they are one array of counts, each 1.
  const counts = new IoBuffer(plan.clusters * REFCOUNT_BYTES);
  for (let n = 0; n < plan.clusters; n++) counts.view.setUint16(n * REFCOUNT_BYTES, 1);
  storage.write(counts, 0, counts.length, firstBlock * clusterSize);
  storage.write(table, 0, table.length, clusterSize);
}

/** The header, its extensions and the backing file's name. */
function headerOf(plan: Plan, options: CreateOptions): Buffer {
  const { clusterBits, clusterSize } = plan.geometry;
  const name = backingName(options);
  const fields = Buffer.alloc(HEADER_LENGTH);
  const before =
    options.backingFormat === undefined || name.length === 0
      ? []
      : [extension(EXTENSION_TYPE.BACKING_FORMAT, Buffer.from(options.backingFormat))];
  const end = Buffer.alloc(HEADER_EXTENSION.size);
  const names = extension(EXTENSION_TYPE.FEATURE_TABLE, featureTable());
  const full = Buffer.concat([fields, ...before, names, end]);
  // Without the names of features where there is no room for them, as QEMU.
  const fits = full.length + name.length <= clusterSize;
  const start = fits ? full : Buffer.concat([fields, ...before, end]);
  if (name.length > Math.min(LIMIT.MAX_BACKING_NAME, clusterSize - start.length)) {
    const most = Math.max(0, Math.min(LIMIT.MAX_BACKING_NAME, clusterSize - start.length));
    throw invalid('EINVAL', 'Backing file name too long', `${name.length} bytes, at most ${most}`);
  }
  const view = new DataView(start.buffer, start.byteOffset, start.length);
  HEADER.write(view, 0, {
    magic: QCOW2_MAGIC,
    version: VERSION,
    backingFileOffset: name.length === 0 ? 0 : start.length,
    backingFileSize: name.length,
    clusterBits,
    size: plan.size,
    l1Size: plan.l1Size,
    l1TableOffset: plan.l1TableOffset,
    refcountTableOffset: clusterSize,
    refcountTableClusters: plan.refcountTableClusters,
  });
  HEADER_V3.write(view, HEADER.size, {
    incompatibleFeatures: 0n,
    compatibleFeatures:
      options.lazyRefcounts === true ? 1n << BigInt(COMPATIBLE.LAZY_REFCOUNTS) : 0n,
    autoclearFeatures: 0n,
    refcountOrder: REFCOUNT_ORDER,
    headerLength: HEADER_LENGTH,
  });
  return Buffer.concat([start, name]);
}

function backingName({ backingFile, backingFormat }: CreateOptions): Buffer {
  if (backingFile === undefined) return Buffer.alloc(0);
  if (backingFile === '' || backingFile.includes('\0')) {
    throw invalid('EINVAL', 'Backing file name is empty or holds a NUL');
  }
  if (backingFormat === undefined || backingFormat === '') {
    throw invalid('EINVAL', 'Backing file specified without backing format');
  }
  return Buffer.from(backingFile);
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

/** A header extension, filled up to a multiple of 8 bytes. */
function extension(type: number, data: Buffer): Buffer {
  const whole = Buffer.alloc(HEADER_EXTENSION.size + alignUp(data.length, 8));
  const view = new DataView(whole.buffer, whole.byteOffset, whole.length);
  HEADER_EXTENSION.write(view, 0, { type, length: data.length });
  data.copy(whole, HEADER_EXTENSION.size);
  return whole;
}

function invalid(code: ErrnoName, message: string, limit?: string): ImageError {
  return new ImageError('invalid', code, message, limit === undefined ? {} : { limit });
}
