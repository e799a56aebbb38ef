/**
 * Compressed clusters: raw deflate or zstd, at any byte of the file, in whole sectors but for the
 * file's end. What follows the compressed data in its last sector belongs to others.
 */
import { constants, deflateRawSync, inflateRawSync } from 'node:zlib';
import { LRUCache } from 'lru-cache';
import { ImageError } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import { COMPRESSION_TYPE } from './layout.js';
import { zstdFrame } from './zstd-frame.js';

/** Log2 of the deflate window that QEMU writes with. */
const WINDOW_BITS = 12;

/** What QEMU compresses with, so that files come out as large as its own. */
const DEFLATE_MEMORY = 9;
const ZSTD_LEVEL = 3;

/** Bytes that a block of a zstd frame can make at most. */
const ZSTD_BLOCK_SIZE = 128 << 10;

/** Frames that do not tell their size may have blocks for so many bytes: short ones are common. */
const UNSIZED_FRAME_SIZE = 128 << 20;

/** Bytes of decompressed clusters that a thread keeps of all layers together. */
const KEPT_SIZE = 8 << 20;

/** Room for a layer's number in the key of a kept cluster. */
const MOST_LAYERS = 256;

let zstd: typeof import('@cloudpss/zstd/wasm') | undefined;

/**
 * Loads what zstd needs into this thread; to be awaited before the first cluster of that type.
 * It is WebAssembly, one instance for each thread (10 MB): the same library's native binding has one
 * context for the whole process, and two threads in it at once crash.
 */
export async function loadZstd(): Promise<void> {
  zstd ??= await import('@cloudpss/zstd/wasm');
}

/**
 * Compresses a cluster, or what a disk has of its last one: the rest is zeroes. Null where it does not
 * become smaller. In any thread, without locks; zstd must be loaded there (`loadZstd`).
 */
export function compressCluster(
  type: number,
  bytes: Uint8Array,
  clusterSize = bytes.length,
): Uint8Array | null {
  let whole = bytes;
  if (bytes.length < clusterSize) {
    whole = new Uint8Array(clusterSize);
    whole.set(bytes);
  }
  const packed = type === COMPRESSION_TYPE.ZSTD ? compressZstd(whole) : compressDeflate(whole);
  return packed.length < clusterSize ? packed : null;
}

function compressDeflate(cluster: Uint8Array): Uint8Array {
  // With as large a chunk as counts, zlib is asked once.
  const chunkSize = Math.max(constants.Z_MIN_CHUNK, cluster.length);
  return deflateRawSync(cluster, { windowBits: WINDOW_BITS, memLevel: DEFLATE_MEMORY, chunkSize });
}

function compressZstd(cluster: Uint8Array): Uint8Array {
  if (zstd === undefined) throw new TypeError('zstd is not loaded in this thread');
  return zstd.compress(cluster, ZSTD_LEVEL);
}

/** Where a compressed cluster lies. */
export interface CompressedSource {
  readonly storage: Storage;
  /** The layer's number in its chain. */
  readonly file: number;
  readonly compressionType: number;
  /** Bytes of a decompressed cluster. */
  readonly clusterSize: number;
}

/** Decompresses clusters of all layers of an image, and keeps the last ones. One thread's own. */
export class ClusterDecompressor {
  #input = new IoBuffer(0);
  readonly #epoch: () => number;
  #seenEpoch = 0;
  /** By offset and layer. */
  readonly #kept = new LRUCache<number, Uint8Array>({
    maxSize: KEPT_SIZE,
    sizeCalculation: (cluster) => cluster.length,
  });

  /** `epoch`: grows where what was read before may be something else now. */
  constructor(epoch: () => number = () => 0) {
    this.#epoch = epoch;
  }

  /** The cluster whose compressed bytes lie at `offset` of the source, `length` of them at most. */
  cluster(source: CompressedSource, offset: number, length: number): Uint8Array {
    const epoch = this.#epoch();
    if (epoch !== this.#seenEpoch) this.#kept.clear();
    this.#seenEpoch = epoch;
    const key = offset * MOST_LAYERS + source.file;
    const kept = this.#kept.get(key);
    if (kept !== undefined) return kept;
    // A descriptor can count up to twice a cluster's sectors.
    if (length > this.#input.length) this.#input = new IoBuffer(2 * source.clusterSize + 512);
    const most = Math.min(length, this.#input.length);
    const n = source.storage.read(this.#input, 0, most, offset);
    const cluster = expand(source, offset, this.#input.bytes.subarray(0, n));
    // Offsets beyond 2^45 would share keys.
    if (Number.isSafeInteger(key)) this.#kept.set(key, cluster);
    return cluster;
  }
}

function expand(source: CompressedSource, offset: number, compressed: Uint8Array): Uint8Array {
  const { clusterSize, compressionType, storage } = source;
  let cause: unknown;
  try {
    const cluster =
      compressionType === COMPRESSION_TYPE.ZSTD
        ? expandZstd(compressed, clusterSize)
        : expandDeflate(compressed, clusterSize);
    if (cluster.length === clusterSize) return cluster;
    cause = `${cluster.length} bytes instead of ${clusterSize}`;
  } catch (error) {
    cause = error instanceof Error ? error.message : error;
  }
  const { name } = storage;
  throw new ImageError(
    'corrupt',
    'EIO',
    `${name}: cannot decompress the cluster at offset 0x${offset.toString(16)}: ${cause}`,
    { path: name, offset },
  );
}

function expandDeflate(compressed: Uint8Array, clusterSize: number): Uint8Array {
  return inflateRawSync(compressed, {
    windowBits: WINDOW_BITS,
    // With a byte to spare, zlib sees the stream's end without a second chunk.
    chunkSize: clusterSize + 1,
    maxOutputLength: clusterSize,
    // Data that is cut short ends quietly, and is then found to be too short.
    finishFlush: constants.Z_SYNC_FLUSH,
  });
}

/** One frame, or several behind each other, until the cluster is full. */
function expandZstd(compressed: Uint8Array, clusterSize: number): Uint8Array {
  if (zstd === undefined) throw new TypeError('zstd is not loaded in this thread');
  const parts: Uint8Array[] = [];
  let length = 0;
  let at = 0;
  while (length < clusterSize) {
    const frame = zstdFrame(compressed.subarray(at));
    // The library would take as much memory as the frame says, or as its blocks can make.
    const most = frame.contentSize ?? frame.blocks * ZSTD_BLOCK_SIZE;
    const allowed = frame.contentSize === undefined ? UNSIZED_FRAME_SIZE : clusterSize - length;
    if (most > allowed) throw new Error(`frame of ${most} bytes, larger than a cluster`);
    const part = zstd.decompress(compressed.subarray(at, at + frame.length));
    if (part.length === 0) break;
    parts.push(part);
    length += part.length;
    at += frame.length;
  }
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}
