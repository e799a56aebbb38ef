/** Where copied bytes go: a file of raw bytes, or an image through its writer. */
import { COMPRESSION_TYPE } from '../image/qcow2/layout.js';
import { compressCluster } from '../image/qcow2/compression.js';
import type { ImageWriter } from '../image/writer.js';
import type { CopyState } from '../shared/copy-state.js';
import type { MutableStorage } from '../storage/storage.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import { Stopped } from './copy-failure.js';

/** From byte `start` on up to `end`. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** A range that was read, and is to be written. */
export interface LoadedRange extends Span {
  readonly ticket: number;
  /** Its byte 0 is the disk's byte `start`. */
  readonly buffer: IoBuffer;
  /** What is to be written of it, in order. */
  readonly data: readonly Span[];
  /** What must be made zeroes. */
  readonly zeroes: readonly Span[];
}

/** What a range has become in a new qcow2 image. Three numbers each, but two for a table. */
export interface Layout {
  /** L1 index, host offset. */
  readonly tables: readonly number[];
  /** Guest cluster, count, host offset. */
  readonly clusters: readonly number[];
  /** Guest cluster, host offset, length. */
  readonly compressed: readonly number[];
}

export interface CopySink {
  /** Writes the range. What is thrown is about writing, or Stopped. */
  put(range: LoadedRange): Layout | null;
}

/** A new file that holds the disk as it is. Its size is what it has got so far: it is whole last of all. */
export class RawSink implements CopySink {
  readonly #storage: MutableStorage;
  readonly #state: CopyState;
  readonly #size: number;

  /** `size`: bytes of the disk. */
  constructor(storage: MutableStorage, state: CopyState, size: number) {
    this.#storage = storage;
    this.#state = state;
    this.#size = size;
  }

  put({ ticket, start, end, buffer, data }: LoadedRange): null {
    if (end === this.#size && !this.#state.awaitAllBefore(ticket)) throw new Stopped();
    for (const span of data) {
      this.#storage.write(buffer, span.start - start, span.end - span.start, span.start);
    }
    return null;
  }
}

/** An image that is there, of whatever format. */
export class WriterSink implements CopySink {
  readonly #writer: ImageWriter;

  constructor(writer: ImageWriter) {
    this.#writer = writer;
  }

  put({ start, buffer, data, zeroes }: LoadedRange): null {
    for (const span of data) {
      this.#writer.write(span.start, span.end - span.start, buffer, span.start - start);
    }
    for (const span of zeroes) this.#writer.discard(span.start, span.end - span.start);
    return null;
  }
}

/** How clusters are compressed. */
export interface Compression {
  /** Of COMPRESSION_TYPE. */
  readonly type: number;
  readonly clusterSize: number;
}

/** The same, compressed. */
export class CompressedWriterSink implements CopySink {
  readonly #writer: ImageWriter;
  readonly #compression: Compression;

  constructor(writer: ImageWriter, compression: Compression) {
    this.#writer = writer;
    this.#compression = compression;
  }

  put(range: LoadedRange): null {
    const { start, buffer, zeroes } = range;
    for (const span of clustersOf(range.data, this.#compression.clusterSize)) {
      const packed = compressSpan(range, span, this.#compression);
      if (packed !== null) this.#writer.writeCompressed(span.start, packed, packed.length);
      else this.#writer.write(span.start, span.end - span.start, buffer, span.start - start);
    }
    for (const span of zeroes) this.#writer.discard(span.start, span.end - span.start);
    return null;
  }
}

/** Spans of whole clusters, one by one. */
export function* clustersOf(
  spans: readonly Span[],
  clusterSize: number,
): Generator<Span, void, void> {
  for (const { start, end } of spans) {
    for (let at = start; at < end; at += clusterSize) {
      yield { start: at, end: Math.min(end, at + clusterSize) };
    }
  }
}

/** Null where it does not become smaller. */
export function compressSpan(
  { start, buffer }: LoadedRange,
  span: Span,
  { type, clusterSize }: Compression,
): Uint8Array | null {
  const bytes = buffer.bytes.subarray(span.start - start, span.end - start);
  return compressCluster(type, bytes, clusterSize);
}

/** Whether threads need zstd for it. */
export function needsZstd(compression: Compression | null): boolean {
  return compression?.type === COMPRESSION_TYPE.ZSTD;
}
