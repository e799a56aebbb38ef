/**
 * Composes qcow2 images byte for byte, through the struct tables of the program but without its
 * logic and without QEMU. Metadata comes first in the file, compressed data last.
 */
import { writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { deflateRawSync } from 'node:zlib';
import { compress as zstdCompress } from '@cloudpss/zstd/wasm';
import { alignUp, divCeil } from '#src/codec/bits.js';
import {
  COMPRESSION_TYPE_OFFSET,
  HEADER,
  HEADER_V3,
  QCOW2_MAGIC,
} from '#src/image/qcow2/layout.js';
import { HostFile } from './host-file.js';
import type {
  BitmapSpec,
  BuiltImage,
  Clusters,
  ClusterSpec,
  ImageSpec,
  Places,
  SnapshotSpec,
} from './image-spec.js';
import {
  bitmapEntry,
  featuresOf,
  headerExtensions,
  snapshotEntry,
  viewOf,
} from './image-structs.js';

const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const ALL_SUBCLUSTERS = 0xffff_ffffn;
/** Of version 3's header with the compression type and its padding. */
const HEADER_LENGTH = 112;

/** One L1 table and the clusters that it maps; `active`: the disk's, not a snapshot's. */
interface Tree {
  readonly clusters: Clusters;
  readonly l1Size: number;
  readonly active: boolean;
  l1Table: number;
  readonly l2Tables: Map<number, number>;
}

/** Builds the image; what is not given is as QEMU makes it (version 3, 64 KiB, 16-bit counts). */
export function buildImage(spec: ImageSpec): BuiltImage {
  return new Builder(spec).build();
}

/** Builds the image into the file at `path`, and its data file where its name says. */
export function writeImage(path: string, spec: ImageSpec): BuiltImage {
  const built = buildImage(spec);
  writeFileSync(path, built.bytes);
  if (built.dataFile !== null) {
    writeFileSync(resolve(dirname(path), spec.dataFile!.name), built.dataFile);
  }
  return built;
}

class Builder {
  readonly #spec: ImageSpec;
  readonly #clusterBits: number;
  readonly #clusterSize: number;
  readonly #entrySize: number;
  readonly #refcountBits: number;
  readonly #file: HostFile;
  readonly #dataFile: Buffer | null;
  /** Where each cluster lies, and the sectors of compressed ones. */
  readonly #placed = new Map<ClusterSpec, { at: number; sectors: number }>();
  readonly #places: Places = {
    l1Table: 0,
    l2Tables: new Map(),
    refcountTable: 0,
    refcountBlocks: [],
    snapshotTable: 0,
    snapshotEntries: [],
    snapshotL1Tables: [],
    bitmapDirectory: 0,
    clusters: new Map(),
  };

  constructor(spec: ImageSpec) {
    this.#spec = spec;
    this.#clusterBits = spec.clusterBits ?? 16;
    this.#clusterSize = 2 ** this.#clusterBits;
    this.#entrySize = spec.extendedL2 === true ? 16 : 8;
    this.#refcountBits = 2 ** (spec.refcountOrder ?? 4);
    this.#file = new HostFile(this.#clusterSize, this.#refcountBits);
    this.#dataFile =
      spec.dataFile === undefined ? null : Buffer.alloc(alignUp(spec.size, this.#clusterSize));
  }

  build(): BuiltImage {
    const { snapshots = [], bitmaps = [], clusters = new Map() } = this.#spec;
    this.#file.allocate(this.#clusterSize);
    const l1Size = this.#spec.l1Size ?? this.#l1EntriesFor(this.#spec.size);
    const { l2Tables } = this.#places;
    const active: Tree = { clusters, l1Size, active: true, l1Table: 0, l2Tables };
    const trees = [active, ...snapshots.map((snapshot) => this.#snapshotTree(snapshot))];
    for (const tree of trees) this.#allocateTables(tree);
    this.#places.l1Table = active.l1Table;
    this.#places.snapshotL1Tables.push(...trees.slice(1).map((tree) => tree.l1Table));
    this.#writeSnapshotTable(snapshots, trees.slice(1));
    const directorySize = this.#writeBitmaps(bitmaps);
    this.#allocateRefcounts(trees);
    for (const compressed of [false, true]) {
      for (const tree of trees) this.#placeClusters(tree, compressed);
    }
    for (const tree of trees) this.#writeTables(tree);
    this.#writeRefcounts();
    this.#writeHeader(active.l1Size, directorySize);
    const bytes = this.#file.toBuffer(this.#spec.trimmed === true);
    return { bytes, dataFile: this.#dataFile, places: this.#places };
  }

  get #l2Entries(): number {
    return this.#clusterSize / this.#entrySize;
  }

  #l1EntriesFor(size: number): number {
    return divCeil(size, this.#l2Entries * this.#clusterSize);
  }

  /** The VM state lies behind the disk, from the next whole L2 table on. */
  #snapshotTree(snapshot: SnapshotSpec): Tree {
    const coverage = this.#l2Entries * this.#clusterSize;
    const diskEntries = this.#l1EntriesFor(snapshot.diskSize ?? this.#spec.size);
    const clusters = new Map(snapshot.clusters);
    for (const [index, cluster] of snapshot.vmState ?? []) {
      clusters.set(diskEntries * this.#l2Entries + index, cluster);
    }
    const l1Size = diskEntries + divCeil(snapshot.vmStateSize ?? 0, coverage);
    return { clusters, l1Size, active: false, l1Table: 0, l2Tables: new Map() };
  }

  #allocateTables(tree: Tree): void {
    if (tree.l1Size > 0) tree.l1Table = this.#file.allocate(tree.l1Size * 8);
    for (const index of tree.clusters.keys()) {
      const l1Index = Math.floor(index / this.#l2Entries);
      if (!tree.l2Tables.has(l1Index)) {
        tree.l2Tables.set(l1Index, this.#file.allocate(this.#clusterSize));
      }
    }
  }

  /** Enough refcount blocks for everything, the refcount blocks and their table included. */
  #allocateRefcounts(trees: readonly Tree[]): void {
    const perBlock = (this.#clusterSize * 8) / this.#refcountBits;
    const present = this.#file.counts.length;
    // A compressed cluster that does not compress touches three.
    const data = trees.reduce((sum, tree) => sum + 3 * tree.clusters.size, 0);
    let blocks = 0;
    let tableClusters = 0;
    for (let last = -1; last !== blocks; ) {
      last = blocks;
      blocks = divCeil(present + data + blocks + tableClusters, perBlock);
      tableClusters = divCeil(blocks * 8, this.#clusterSize);
    }
    this.#places.refcountTable = this.#file.allocate(tableClusters * this.#clusterSize);
    for (let block = 0; block < blocks; block++) {
      this.#places.refcountBlocks.push(this.#file.allocate(this.#clusterSize));
    }
  }

  /** Gives the clusters of a tree their place: the compressed ones, or all others. */
  #placeClusters(tree: Tree, compressed: boolean): void {
    for (const [index, cluster] of tree.clusters) {
      if ((cluster.kind === 'compressed') !== compressed || !needsHost(cluster)) continue;
      const known = this.#placed.get(cluster);
      if (known !== undefined && this.#dataFile === null) this.#shareAgain(known);
      const place = known ?? this.#place(index, cluster);
      this.#placed.set(cluster, place);
      if (tree.active) this.#places.clusters.set(index, place.at);
    }
  }

  #shareAgain({ at, sectors }: { at: number; sectors: number }): void {
    const first = Math.floor(at / this.#clusterSize);
    const end = sectors === 0 ? at + 1 : at - (at % 512) + sectors * 512;
    const last = Math.floor((end - 1) / this.#clusterSize);
    for (let n = first; n <= last; n++) this.#file.share(n * this.#clusterSize);
  }

  #place(index: number, cluster: ClusterSpec): { at: number; sectors: number } {
    const bytes = 'bytes' in cluster ? cluster.bytes : new Uint8Array();
    if (cluster.kind === 'compressed') {
      return this.#file.writeCompressed(cluster.stored ?? this.#compress(bytes));
    }
    if (this.#dataFile !== null) {
      this.#dataFile.set(bytes, index * this.#clusterSize);
      return { at: index * this.#clusterSize, sectors: 0 };
    }
    const at = this.#file.allocate(this.#clusterSize);
    this.#file.write(at, bytes);
    return { at, sectors: 0 };
  }

  #compress(bytes: Uint8Array): Uint8Array {
    const cluster = Buffer.alloc(this.#clusterSize);
    cluster.set(bytes);
    if (this.#spec.compression === 'zstd') return zstdCompress(cluster);
    return deflateRawSync(cluster, { windowBits: 12 });
  }

  #writeTables(tree: Tree): void {
    const l1 = Buffer.alloc(tree.l1Size * 8);
    const l2 = new Map<number, Buffer>();
    for (const [l1Index, at] of tree.l2Tables) {
      l1.writeBigUInt64BE(BigInt(at) | (tree.active ? COPIED : 0n), l1Index * 8);
      l2.set(l1Index, Buffer.alloc(this.#clusterSize));
    }
    for (const [index, cluster] of tree.clusters) {
      const table = l2.get(Math.floor(index / this.#l2Entries))!;
      const at = (index % this.#l2Entries) * this.#entrySize;
      table.writeBigUInt64BE(this.#entryOf(cluster, tree.active), at);
      if (this.#entrySize === 16) table.writeBigUInt64BE(bitmapOf(cluster), at + 8);
    }
    this.#file.write(tree.l1Table, l1);
    for (const [l1Index, at] of tree.l2Tables) this.#file.write(at, l2.get(l1Index)!);
  }

  #entryOf(cluster: ClusterSpec, active: boolean): bigint {
    if (cluster.kind === 'entry') return cluster.entry;
    const place = this.#placed.get(cluster);
    const zero = cluster.kind === 'zero' && this.#entrySize === 8 ? 1n : 0n;
    if (place === undefined) return zero;
    if (cluster.kind === 'compressed') {
      const shift = BigInt(62 - (this.#clusterBits - 8));
      return COMPRESSED | (BigInt(place.sectors - 1) << shift) | BigInt(place.at);
    }
    const single = this.#dataFile !== null || this.#file.counts[place.at / this.#clusterSize] === 1;
    return BigInt(place.at) | zero | (active && single ? COPIED : 0n);
  }

  #writeRefcounts(): void {
    const { counts } = this.#file;
    const { refcountTable, refcountBlocks } = this.#places;
    const bits = this.#refcountBits;
    const perBlock = (this.#clusterSize * 8) / bits;
    const table = Buffer.alloc(refcountBlocks.length * 8);
    for (const [number, at] of refcountBlocks.entries()) {
      table.writeBigUInt64BE(BigInt(at), number * 8);
      const block = Buffer.alloc(this.#clusterSize);
      for (let n = 0; n < perBlock; n++) {
        const count = counts[number * perBlock + n] ?? 0;
        writeCount(block, n, bits, count);
      }
      this.#file.write(at, block);
    }
    this.#file.write(refcountTable, table);
  }

  #writeSnapshotTable(snapshots: readonly SnapshotSpec[], trees: readonly Tree[]): void {
    if (snapshots.length === 0) return;
    const entries = snapshots.map((snapshot, n) => snapshotEntry(snapshot, trees[n]!, this.#spec));
    const table = Buffer.concat(entries);
    this.#places.snapshotTable = this.#file.allocate(table.length);
    let at = this.#places.snapshotTable;
    for (const entry of entries) {
      this.#places.snapshotEntries.push(at);
      at += entry.length;
    }
    this.#file.write(this.#places.snapshotTable, table);
  }

  /** Bitmaps without a bit set. Answers the directory's size. */
  #writeBitmaps(bitmaps: readonly BitmapSpec[]): number {
    if (bitmaps.length === 0) return 0;
    const entries = bitmaps.map((bitmap) => {
      const bytes = this.#spec.size / 2 ** (bitmap.granularityBits ?? 16) / 8;
      const tableSize = Math.max(1, divCeil(bytes, this.#clusterSize));
      return bitmapEntry(bitmap, this.#file.allocate(tableSize * 8), tableSize);
    });
    const directory = Buffer.concat(entries);
    this.#places.bitmapDirectory = this.#file.allocate(directory.length);
    this.#file.write(this.#places.bitmapDirectory, directory);
    return directory.length;
  }

  #writeHeader(l1Size: number, bitmapDirectorySize: number): void {
    const spec = this.#spec;
    const version = spec.version ?? 3;
    const tail = spec.headerTail ?? new Uint8Array();
    const headerLength = version === 2 ? HEADER.size : HEADER_LENGTH + tail.length;
    const directory = { at: this.#places.bitmapDirectory, size: bitmapDirectorySize };
    const extensions = headerExtensions(spec, directory);
    const name = Buffer.from(spec.backing?.name ?? '');
    const fields = {
      magic: QCOW2_MAGIC,
      version,
      backingFileOffset: spec.backing === undefined ? 0 : headerLength + extensions.length,
      backingFileSize: name.length,
      clusterBits: this.#clusterBits,
      size: spec.size,
      l1Size,
      l1TableOffset: this.#places.l1Table,
      refcountTableOffset: this.#places.refcountTable,
      refcountTableClusters: divCeil(this.#places.refcountBlocks.length * 8, this.#clusterSize),
      nbSnapshots: spec.snapshots?.length ?? 0,
      snapshotsOffset: this.#places.snapshotTable,
      ...featuresOf(spec),
      refcountOrder: spec.refcountOrder ?? 4,
      headerLength,
      compressionType: spec.compression === 'zstd' ? 1 : 0,
      ...spec.header,
    };
    const header = Buffer.alloc(headerLength);
    const view = viewOf(header);
    HEADER.write(view, 0, fields);
    if (version === 3) {
      HEADER_V3.write(view, HEADER.size, fields);
      view.setUint8(COMPRESSION_TYPE_OFFSET, fields.compressionType);
      header.set(tail, HEADER_LENGTH);
    }
    this.#file.write(0, Buffer.concat([header, extensions, name]).subarray(0, this.#clusterSize));
  }
}

/** Counts narrower than a byte begin with the byte's low bits. */
function writeCount(block: Buffer, index: number, bits: number, count: number): void {
  const first = Math.floor((index * bits) / 8);
  if (bits < 8) block[first]! |= count << ((index * bits) % 8);
  else block[first + bits / 8 - 1] = count;
}

function needsHost(cluster: ClusterSpec): boolean {
  if (cluster.kind === 'zero') return cluster.preallocated === true;
  if (cluster.kind === 'subclusters') return cluster.hostless !== true;
  return cluster.kind !== 'entry';
}

function bitmapOf(cluster: ClusterSpec): bigint {
  switch (cluster.kind) {
    case 'data':
      return ALL_SUBCLUSTERS;
    case 'zero':
      return ALL_SUBCLUSTERS << 32n;
    case 'subclusters':
      return (BigInt(cluster.zero >>> 0) << 32n) | BigInt(cluster.allocated >>> 0);
    case 'entry':
      return cluster.bitmap ?? 0n;
    case 'compressed':
      return 0n;
  }
}
