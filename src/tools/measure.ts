/** `measure`: how large an image would become, before there is one. */
import { alignUp, alignUpExact, divCeil } from '../codec/bits.js';
import { ImageError, invalid } from '../errors.js';
import { isCreatable, type OptionValues } from '../image/create-options.js';
import type { KeyRing } from '../image/crypto/key-ring.js';
import { checkLuksOptions, luksSize } from '../image/crypto/luks-write.js';
import type { Bitmap } from '../image/qcow2/bitmaps.js';
import { ENTRY_SIZE, refcountsFor } from '../image/qcow2/create-layout.js';
import {
  checkClusterSize,
  checkExtendedL2,
  checkRefcountBits,
} from '../image/qcow2/create-options.js';
import { type Geometry, geometryOf } from '../image/qcow2/geometry.js';
import { BITMAP_DIRECTORY_ENTRY, LIMIT } from '../image/qcow2/layout.js';
import { SECTOR_SIZE } from '../image/extent.js';
import type { Steps } from '../image/steps.js';
import { preallocationNamed } from '../image/writer.js';
import { blockStatus, type MappedDisk } from './block-status.js';
import type { OpenDisk } from './open-disk.js';
import { encryptionOf } from './qcow2-options.js';
import { chosenSnapshot, type SnapshotChoice } from './snapshot-choice.js';

/** Bytes whose map is walked at once, at least; a multiple of every cluster's size. */
const WINDOW_SIZE = 2 ** 30;
/** And how many times, at most. */
const MOST_WINDOWS = 4096;

/** Bytes of the file. */
export interface Measure {
  /** For what the source holds. */
  readonly required: bigint;
  /** With everything written. */
  readonly fullyAllocated: bigint;
  /** What its bitmaps would add; where source and target both can have some. */
  readonly bitmaps?: number;
}

/** What would be stored: an image, or a disk of so many bytes that holds nothing. */
export interface MeasureRequest {
  /** Of the target. */
  readonly format: string;
  readonly values: OptionValues;
  readonly source: OpenDisk | bigint;
  readonly snapshot?: SnapshotChoice | undefined;
  /** With the secret that the values name. */
  readonly keys: KeyRing;
}

/** Throws an ImageError in QEMU's words. A source's whole map is walked. */
export function* measureSteps({
  format,
  values,
  source,
  snapshot,
  keys,
}: MeasureRequest): Steps<Measure> {
  if (format !== 'qcow2' && format !== 'raw' && isCreatable(format)) {
    throw new ImageError(
      'unsupported',
      'ENOTSUP',
      `Block driver '${format}' does not support size measurement`,
    );
  }
  const content = contentOf(source, snapshot);
  if (format === 'raw') {
    const size = alignUpExact(content.size, SECTOR_SIZE);
    return { required: size, fullyAllocated: size };
  }
  return yield* measureQcow2(values, content, keys);
}

/** What is to be stored. */
interface Content {
  /** Bytes of the disk. */
  readonly size: bigint;
  readonly disk: MappedDisk | null;
  /** Null where the source can have none. */
  readonly bitmaps: readonly Bitmap[] | null;
}

function contentOf(source: OpenDisk | bigint, snapshot: SnapshotChoice | undefined): Content {
  if (typeof source === 'bigint') return { size: source, disk: null, bitmaps: null };
  const { description, size } = source;
  const disk =
    snapshot === undefined
      ? source.disk
      : source.image.snapshotDisk(chosenSnapshot(source, snapshot).view);
  const [top] = description.layers;
  const hasBitmaps = top.format === 'qcow2' && top.header.version >= 3;
  // As QEMU: a snapshot is taken for as large as the disk is now.
  return {
    size: BigInt(size),
    disk: { description, disk },
    bitmaps: hasBitmaps ? top.bitmaps : null,
  };
}

function* measureQcow2(values: OptionValues, content: Content, keys: KeyRing): Steps<Measure> {
  const { geometry, preallocation, cryptoSize } = measuredOptions(values, keys);
  const { clusterSize } = geometry;
  // Whole clusters are exact far beyond 2^53: as far as tables go.
  const size = Number(alignUpExact(content.size, clusterSize));
  const tables = divCeil(size / clusterSize, geometry.l2Entries);
  if (tables * ENTRY_SIZE > LIMIT.MAX_L1_SIZE) {
    const message = 'The image size is too large (try using a larger cluster size)';
    throw new ImageError('invalid', 'EFBIG', message);
  }
  const whole = preallocation === 'falloc' || preallocation === 'full';
  // With a backing file, zeroes are stored like anything else.
  const stored =
    whole || (content.disk !== null && values.has('backing_file'))
      ? size
      : yield* storedBytes(content, clusterSize);
  // As QEMU: what counts its clusters is not counted.
  const crypto = alignUp(cryptoSize, clusterSize);
  const fullyAllocated = size + metadataSize(geometry, size) + crypto;
  const required = BigInt(fullyAllocated - size + stored);
  const result = { required, fullyAllocated: BigInt(fullyAllocated) };
  if (geometry.version < 3 || content.bitmaps === null) return result;
  return { ...result, bitmaps: bitmapsSize(content.bitmaps, Number(content.size), clusterSize) };
}

/** The rules that are checked here are fewer than those for making an image, and in other words. */
function measuredOptions(
  values: OptionValues,
  keys: KeyRing,
): { geometry: Geometry; preallocation: string; cryptoSize: number } {
  const clusterSize = values.get('cluster_size')!.number!;
  checkClusterSize(clusterSize);
  const extendedL2 = values.get('extended_l2')!.flag!;
  if (extendedL2) checkExtendedL2(undefined, clusterSize);
  const compat = values.get('compat')?.text ?? '1.1';
  if (compat !== '0.10' && compat !== '1.1') {
    throw invalid(`Invalid compatibility level: '${compat}'`);
  }
  const version = compat === '0.10' ? 2 : 3;
  const refcountBits = values.get('refcount_bits')!.number!;
  checkRefcountBits(version, refcountBits, '(use compat=1.1 or greater)');
  const preallocation = values.get('preallocation')?.text ?? 'off';
  if (preallocationNamed(preallocation) === undefined) {
    throw invalid(`invalid parameter value: ${preallocation}`);
  }
  const geometry = geometryOf({
    version,
    clusterBits: Math.log2(clusterSize),
    extendedL2,
    refcountOrder: Math.log2(refcountBits),
  });
  return { geometry, preallocation, cryptoSize: cryptoSizeOf(values, keys) };
}

/** Bytes of the LUKS header that the image would have; the older AES is not looked at. */
function cryptoSizeOf(values: OptionValues, keys: KeyRing): number {
  if (values.get('encrypt.format')?.text !== 'luks') return 0;
  const { secret, luks } = encryptionOf(values)!;
  if (secret === undefined) throw invalid("Parameter 'encrypt.key-secret' is required for cipher");
  keys.secret(secret);
  checkLuksOptions(luks!);
  return luksSize(luks!);
}

/** Bytes of the clusters of which a part is data. */
function* storedBytes({ disk, size }: Content, clusterSize: number): Steps<number> {
  if (disk === null) return 0;
  const end = Math.min(disk.disk.size, Number(size));
  let stored = 0;
  /** Clusters before this place are counted. */
  let counted = 0;
  const window = alignUp(Math.max(1, Math.ceil(end / MOST_WINDOWS)), WINDOW_SIZE);
  for (let done = 0; done < end; done += window) {
    yield done / end;
    const stop = Math.min(end, done + window);
    for (const { start, length, zero, data } of blockStatus(disk, done, stop)) {
      if (zero || !data) continue;
      const from = Math.max(counted, start - (start % clusterSize));
      const to = alignUp(start + length, clusterSize);
      if (to <= from) continue;
      stored += to - from;
      counted = to;
    }
  }
  return stored;
}

/** Of a disk of `size` bytes, whole clusters, that is written everywhere. */
function metadataSize(geometry: Geometry, size: number): number {
  const { clusterSize, l2Entries } = geometry;
  const clusters = size / clusterSize;
  const l2Clusters = divCeil(clusters, l2Entries);
  const l1Clusters = divCeil(l2Clusters * ENTRY_SIZE, clusterSize);
  const others = 1 + l1Clusters + l2Clusters;
  const { blocks, tableClusters } = refcountsFor(others + clusters, geometry);
  return (others + blocks + tableClusters) * clusterSize;
}

/** Each bitmap with its table, and the directory; all bits are stored. */
function bitmapsSize(bitmaps: readonly Bitmap[], diskSize: number, clusterSize: number): number {
  let size = 0;
  let directory = 0;
  for (const { name, granularity } of bitmaps) {
    const bytes = divCeil(divCeil(diskSize, granularity), 8);
    const clusters = divCeil(bytes, clusterSize);
    size += clusters * clusterSize + alignUp(clusters * ENTRY_SIZE, clusterSize);
    directory += alignUp(BITMAP_DIRECTORY_ENTRY.size + Buffer.byteLength(name), 8);
  }
  return size + alignUp(directory, clusterSize);
}
