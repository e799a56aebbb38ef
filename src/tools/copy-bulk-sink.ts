/**
 * Filling a new qcow2 image without its writer: clusters are laid out one behind the other, in the
 * disk's order, and written in long runs; the main thread makes the tables of what it is told.
 */
import { BulkAllocator } from '../image/qcow2/bulk-allocator.js';
import type { Geometry } from '../image/qcow2/geometry.js';
import type { CopyState } from '../shared/copy-state.js';
import type { MutableStorage } from '../storage/storage.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { CHUNK_SIZE } from './copy-feed.js';
import { Stopped } from './copy-failure.js';
import {
  clustersOf,
  type Compression,
  compressSpan,
  type CopySink,
  type Layout,
  type LoadedRange,
  type Span,
} from './copy-sink.js';

/** A run of guest clusters, and where it goes. */
interface Group {
  readonly first: number;
  count: number;
  host: number;
}

export class BulkSink implements CopySink {
  readonly #storage: MutableStorage;
  readonly #state: CopyState;
  readonly #geometry: Geometry;
  readonly #allocator: BulkAllocator;

  constructor(storage: MutableStorage, state: CopyState, geometry: Geometry) {
    this.#storage = storage;
    this.#state = state;
    this.#geometry = geometry;
    this.#allocator = new BulkAllocator(state.layout, geometry);
  }

  put({ ticket, start, buffer, data }: LoadedRange): Layout {
    const { clusterSize } = this.#geometry;
    const groups = this.#groupsOf(data);
    if (!this.#state.awaitTurn(ticket)) throw new Stopped();
    const tables = groups.flatMap(({ first, count }) =>
      placeTables(this.#allocator, this.#geometry, first, count),
    );
    for (const group of groups) group.host = this.#allocator.clusters(group.count);
    this.#state.endTurn();
    let n = 0;
    for (const span of data) {
      while (span.start >= (groups[n]!.first + groups[n]!.count) * clusterSize) n++;
      const { first, host } = groups[n]!;
      const position = host + span.start - first * clusterSize;
      this.#storage.write(buffer, span.start - start, span.end - span.start, position);
    }
    const clusters = groups.flatMap(({ first, count, host }) => [first, count, host]);
    return { tables, clusters, compressed: [] };
  }

  /** The clusters that the spans touch. */
  #groupsOf(data: readonly Span[]): Group[] {
    const { clusterSize } = this.#geometry;
    const groups: Group[] = [];
    for (const { start, end } of data) {
      const first = Math.floor(start / clusterSize);
      const next = Math.ceil(end / clusterSize);
      const last = groups.at(-1);
      if (last !== undefined && first <= last.first + last.count) {
        last.count = Math.max(last.count, next - last.first);
      } else groups.push({ first, count: next - first, host: 0 });
    }
    return groups;
  }
}

/** Clusters for the L2 tables that `count` guest clusters need and that are not there yet. */
function placeTables(
  allocator: BulkAllocator,
  { l2Entries }: Geometry,
  first: number,
  count: number,
): number[] {
  const tables: number[] = [];
  const last = Math.floor((first + count - 1) / l2Entries);
  for (let l1Index = Math.floor(first / l2Entries); l1Index <= last; l1Index++) {
    const offset = allocator.tableFor(l1Index);
    if (offset !== 0) tables.push(l1Index, offset);
  }
  return tables;
}

/** The same, compressed: several clusters share one of the host's. */
export class CompressedBulkSink implements CopySink {
  readonly #storage: MutableStorage;
  readonly #state: CopyState;
  readonly #geometry: Geometry;
  readonly #allocator: BulkAllocator;
  readonly #compression: Compression;
  /** What goes out in one write: nothing in it is larger than a cluster. */
  readonly #out = new IoBuffer(2 * CHUNK_SIZE);
  #outLength = 0;
  #outPosition = 0;

  constructor(
    storage: MutableStorage,
    state: CopyState,
    geometry: Geometry,
    compression: Compression,
  ) {
    this.#storage = storage;
    this.#state = state;
    this.#geometry = geometry;
    this.#allocator = new BulkAllocator(state.layout, geometry);
    this.#compression = compression;
  }

  put(range: LoadedRange): Layout {
    const { clusterSize } = this.#geometry;
    const packed = [...clustersOf(range.data, clusterSize)].map((span) => ({
      span,
      bytes: compressSpan(range, span, this.#compression),
    }));
    if (!this.#state.awaitTurn(range.ticket)) throw new Stopped();
    const places: number[] = [];
    const layout = { tables: [] as number[], clusters: [] as number[], compressed: [] as number[] };
    for (const { span, bytes } of packed) {
      const cluster = span.start / clusterSize;
      layout.tables.push(...placeTables(this.#allocator, this.#geometry, cluster, 1));
      const host =
        bytes === null ? this.#allocator.clusters(1) : this.#allocator.bytes(bytes.length);
      places.push(host);
      if (bytes === null) layout.clusters.push(cluster, 1, host);
      else layout.compressed.push(cluster, host, bytes.length);
    }
    this.#state.endTurn();
    for (const [n, { span, bytes }] of packed.entries()) {
      const { start, end } = span;
      const source = bytes ?? range.buffer.bytes.subarray(start - range.start, end - range.start);
      this.#write(source, places[n]!);
    }
    this.#flush();
    return layout;
  }

  /** Joins what lies in a row. */
  #write(bytes: Uint8Array, position: number): void {
    const continues = position === this.#outPosition + this.#outLength;
    if (!continues || this.#outLength + bytes.length > this.#out.length) this.#flush();
    if (this.#outLength === 0) this.#outPosition = position;
    this.#out.bytes.set(bytes, this.#outLength);
    this.#outLength += bytes.length;
  }

  #flush(): void {
    const length = this.#outLength;
    this.#outLength = 0;
    if (length > 0) this.#storage.write(this.#out, 0, length, this.#outPosition);
  }
}
