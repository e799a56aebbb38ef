/**
 * An image as it is being compacted: where its tables lie now, and what each host cluster is used for. Kept
 * true while clusters move, so that nothing is walked again to know it.
 */
import { alignUp, divCeil } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import type { MutableStorage, Storage } from '../../storage/storage.js';
import { ClusterSet } from '../cluster-set.js';
import { readExactly } from '../read-bytes.js';
import type { Steps } from '../steps.js';
import type { Bitmap } from './bitmaps.js';
import type { Geometry } from './geometry.js';
import type { Qcow2Header } from './header.js';
import {
  BITMAPS_EXTENSION,
  CRYPTO_HEADER_EXTENSION,
  EXTENSION_TYPE,
  HEADER,
  HEADER_EXTENSION,
  HEADER_V3,
  SNAPSHOT_HEADER,
} from './layout.js';
import { countsPerBlock, largestCount } from './refcount-compare.js';
import { type ReferenceCounts, USE } from './reference-counts.js';
import { scanReferences } from './references.js';
import type { Snapshot } from './snapshots.js';

const ENTRY_SIZE = 8;

/** What a table is, as far as who names it is told by that. */
export type TableKind =
  | 'l1'
  | 'snapshot l1'
  | 'snapshots'
  | 'refcounts'
  | 'bitmap directory'
  | 'bitmap'
  | 'crypto header';

/** A structure whose clusters lie side by side, and that one offset names. */
export interface MovableTable {
  readonly kind: TableKind;
  offset: number;
  /** Bytes. */
  readonly size: number;
  /** Of snapshots and bitmaps: where their entry begins in the table or the directory. */
  readonly entryAt: number;
}

export interface CompactSource {
  readonly storage: MutableStorage;
  readonly header: Qcow2Header;
  readonly snapshots: readonly Snapshot[];
  readonly bitmaps: readonly Bitmap[];
  /** Clusters that the storage has room for: Infinity but for block devices. */
  readonly limit: number;
}

export interface CompactState {
  readonly storage: MutableStorage;
  readonly geometry: Geometry;
  readonly header: Qcow2Header;
  readonly counts: ReferenceCounts;
  /** Clusters that hold compressed data, or parts of it. */
  readonly compressed: ClusterSet;
  /** The header's cluster and those of tables: all that a cluster alone cannot leave. */
  readonly bound: ClusterSet;
  readonly tables: MovableTable[];
  /** Offsets of the refcount blocks by their index; 0: there is none. */
  readonly blocks: Float64Array;
  readonly perBlock: number;
  /** Clusters that the header says the refcount table has. */
  refcountTableClusters: number;
  readonly limit: number;
}

/** Walks everything once. Throws 'corrupt' where clusters have two uses, or anything is wrong. */
export function* readState(source: CompactSource): Steps<CompactState> {
  const { storage, header, snapshots, bitmaps, limit } = source;
  const { geometry } = header;
  const { clusterSize } = geometry;
  const tables = tablesOf(storage, source);
  const snapshotTableSize = tables.find(({ kind }) => kind === 'snapshots')?.size ?? 0;
  const compressed = new ClusterSet();
  const scanned = snapshots.map(({ id, name, l1TableOffset, l1Size }) => {
    return { id, name, l1TableOffset: BigInt(l1TableOffset), l1Size };
  });
  const from = { header, snapshots: scanned, snapshotTableSize, bitmaps };
  const scan = yield* scanReferences(storage, from, {
    largest: largestCount(geometry.refcountBits),
    report: ({ kind }) => {
      throw corrupt(storage, kind);
    },
    conflict: (cluster) => {
      throw corrupt(storage, `cluster ${cluster} has two uses`);
    },
    compressed: (offset, size) => {
      const last = Math.floor((offset + size - 1) / clusterSize);
      for (let at = Math.floor(offset / clusterSize); at <= last; at++) compressed.add(at);
    },
  });
  const bound = new ClusterSet();
  bound.add(0);
  for (const table of tables) eachCluster(table, clusterSize, (cluster) => bound.add(cluster));
  return {
    ...{ storage, geometry, header, counts: scan.counts, compressed, bound, tables, limit },
    blocks: scan.refcountTable,
    perBlock: countsPerBlock(geometry),
    refcountTableClusters: header.refcountTableClusters,
  };
}

export function corrupt(storage: Storage, what: string): ImageError {
  return new ImageError('corrupt', 'EIO', `${storage.name}: the image has errors`, { limit: what });
}

export function clustersOf({ size }: { readonly size: number }, clusterSize: number): number {
  return divCeil(size, clusterSize);
}

export function eachCluster(
  table: { readonly offset: number; readonly size: number },
  clusterSize: number,
  visit: (cluster: number) => void,
): void {
  const first = table.offset / clusterSize;
  for (let n = 0; n < clustersOf(table, clusterSize); n++) visit(first + n);
}

function tablesOf(storage: Storage, source: CompactSource): MovableTable[] {
  const { header, snapshots, bitmaps } = source;
  const { clusterSize } = header.geometry;
  const tables: MovableTable[] = [];
  const put = (kind: TableKind, offset: number, size: number, entryAt = 0) => {
    if (offset !== 0 && size !== 0) tables.push({ kind, offset, size, entryAt });
  };
  const { refcountTableOffset, refcountTableClusters } = header;
  put('refcounts', refcountTableOffset, refcountTableClusters * clusterSize);
  put('l1', header.l1TableOffset, header.l1Size * ENTRY_SIZE);
  let end = 0;
  for (const { l1TableOffset, l1Size } of snapshots) {
    const entryAt = alignUp(end, 8);
    const at = header.snapshotsOffset + entryAt;
    const { view } = readExactly(storage, at, SNAPSHOT_HEADER.size, 'snapshot table entry');
    const { extraDataSize, idStrSize, nameSize } = SNAPSHOT_HEADER.read(view, 0);
    end = entryAt + SNAPSHOT_HEADER.size + extraDataSize + idStrSize + nameSize;
    put('snapshot l1', l1TableOffset, l1Size * ENTRY_SIZE, entryAt);
  }
  put('snapshots', header.snapshotsOffset, end);
  const directory = header.extensions.bitmaps;
  if (directory !== null && bitmaps.length > 0) {
    put('bitmap directory', directory.bitmapDirectoryOffset, directory.bitmapDirectorySize);
    for (const { tableOffset, tableSize, entryOffset } of bitmaps) {
      put('bitmap', tableOffset, tableSize * ENTRY_SIZE, entryOffset);
    }
  }
  const { cryptoHeader } = header.extensions;
  if (cryptoHeader !== null) put('crypto header', cryptoHeader.offset, cryptoHeader.length);
  return tables;
}

/** Where in the file the offset lies by which a table is named; of those that the header names in an extension. */
export function extensionOffsetAt(storage: Storage, kind: TableKind): number {
  const wanted =
    kind === 'crypto header'
      ? { type: EXTENSION_TYPE.CRYPTO_HEADER, at: CRYPTO_HEADER_EXTENSION.offsets.offset }
      : { type: EXTENSION_TYPE.BITMAPS, at: BITMAPS_EXTENSION.offsets.bitmapDirectoryOffset };
  const fixed = readExactly(storage, 0, HEADER.size, 'header').view;
  const version = HEADER.get(fixed, 0, 'version');
  const clusterSize = 2 ** HEADER.get(fixed, 0, 'clusterBits');
  const { view } = readExactly(storage, 0, clusterSize, 'header');
  let at = version < 3 ? HEADER.size : HEADER_V3.get(view, HEADER.size, 'headerLength');
  while (at + HEADER_EXTENSION.size <= clusterSize) {
    const { type, length } = HEADER_EXTENSION.read(view, at);
    at += HEADER_EXTENSION.size;
    if (type === wanted.type) return at + wanted.at;
    if (type === EXTENSION_TYPE.END) break;
    at += alignUp(length, 8);
  }
  throw corrupt(storage, `no header extension of the ${kind}`);
}

/** Whether a cluster can be moved by itself, to any other place. */
export function isCell({ counts, bound, compressed }: CompactState, cluster: number): boolean {
  return counts.word(cluster) !== 0 && !bound.has(cluster) && !compressed.has(cluster);
}

/** Clusters in use but for refcounts. */
export function usedClusters({ counts }: CompactState): number {
  let used = 0;
  counts.forEach((_, __, use) => {
    if (use !== USE.REFCOUNTS) used++;
  });
  return used;
}
