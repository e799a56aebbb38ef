/**
 * Compressed clusters: raw deflate or zstd, at any byte of the file, in whole sectors but for the
 * file's end. What follows the compressed data in its last sector belongs to others.
 */
import { constants, inflateRawSync } from 'node:zlib';
// The native binding has one context for the whole process: two threads in it at once crash.
import { decompress as zstdDecompress } from '@cloudpss/zstd/wasm';
import { LRUCache } from 'lru-cache';
import { ImageError } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import { COMPRESSION_TYPE } from './layout.js';
import { zstdFrame } from './zstd-frame.js';

/** Log2 of the deflate window that QEMU writes with. */
const WINDOW_BITS = 12;

/** Bytes that a block of a zstd frame can make at most. */
const ZSTD_BLOCK_SIZE = 128 << 10;

/** Frames that do not tell their size may have blocks for so many bytes: short ones are common. */
const UNSIZED_FRAME_SIZE = 128 << 20;

/** Bytes of decompressed clusters that one image keeps in each thread. */
const KEPT_SIZE = 4 << 20;

/** Decompresses the clusters of one image, and keeps the last ones. One thread's own. */
export class ClusterDecompressor {
  readonly #type: number;
  readonly #clusterSize: number;
  readonly #input: IoBuffer;
  /** By host offset. */
  readonly #kept: LRUCache<number, Uint8Array>;

  constructor(type: number, clusterSize: number) {
    this.#type = type;
    this.#clusterSize = clusterSize;
    // A descriptor can count up to twice a cluster's sectors.
    this.#input = new IoBuffer(2 * clusterSize + 512);
    this.#kept = new LRUCache({ max: Math.max(2, KEPT_SIZE / clusterSize) });
  }

  /** The cluster whose compressed bytes lie at `offset` of `storage`, `length` of them at most. */
  cluster(storage: Storage, offset: number, length: number): Uint8Array {
    const kept = this.#kept.get(offset);
    if (kept !== undefined) return kept;
    const most = Math.min(length, this.#input.length);
    const n = storage.read(this.#input, 0, most, offset);
    const cluster = this.#expand(storage, offset, this.#input.bytes.subarray(0, n));
    this.#kept.set(offset, cluster);
    return cluster;
  }

  #expand(storage: Storage, offset: number, compressed: Uint8Array): Uint8Array {
    let cause: unknown;
    try {
      const cluster =
        this.#type === COMPRESSION_TYPE.ZSTD
          ? expandZstd(compressed, this.#clusterSize)
          : expandDeflate(compressed, this.#clusterSize);
      if (cluster.length === this.#clusterSize) return cluster;
      cause = `${cluster.length} bytes instead of ${this.#clusterSize}`;
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
}

function expandDeflate(compressed: Uint8Array, clusterSize: number): Uint8Array {
  return inflateRawSync(compressed, {
    windowBits: WINDOW_BITS,
    chunkSize: clusterSize,
    maxOutputLength: clusterSize,
    // Data that is cut short ends quietly, and is then found to be too short.
    finishFlush: constants.Z_SYNC_FLUSH,
  });
}

/** One frame, or several behind each other, until the cluster is full. */
function expandZstd(compressed: Uint8Array, clusterSize: number): Uint8Array {
  const parts: Uint8Array[] = [];
  let length = 0;
  let at = 0;
  while (length < clusterSize) {
    const frame = zstdFrame(compressed.subarray(at));
    // The library would take as much memory as the frame says, or as its blocks can make.
    const most = frame.contentSize ?? frame.blocks * ZSTD_BLOCK_SIZE;
    const allowed = frame.contentSize === undefined ? UNSIZED_FRAME_SIZE : clusterSize - length;
    if (most > allowed) throw new Error(`frame of ${most} bytes, larger than a cluster`);
    const part = zstdDecompress(compressed.subarray(at, at + frame.length));
    if (part.length === 0) break;
    parts.push(part);
    length += part.length;
    at += frame.length;
  }
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
}
