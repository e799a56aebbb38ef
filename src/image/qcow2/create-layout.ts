/**
 * Where everything of a new image lies: as QEMU's tools lay it out, so that maps of images are equal,
 * but for those whose refcount table is longer than a cluster. All clusters of the file are in use.
 */
import { alignUp, divCeil } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import { luksSize } from '../crypto/luks-write.js';
import { SECTOR_SIZE } from '../extent.js';
import type { CheckedOptions } from './create-options.js';
import { type Geometry, geometryOf, l1EntriesFor } from './geometry.js';
import { LIMIT } from './layout.js';

/** A table's entry, of the L1 table, and of the refcount table. */
export const ENTRY_SIZE = 8;

/** Larger disks cannot be told exactly; a whole number of sectors. */
const MOST_SIZE = 2 ** 53 - SECTOR_SIZE;

/** Places are indexes of clusters in the file. */
export interface Qcow2Layout {
  readonly geometry: Geometry;
  /** The disk's, in bytes. */
  readonly size: number;
  /** Of the whole file. */
  readonly clusters: number;
  readonly refcountTableAt: number;
  readonly refcountTableClusters: number;
  readonly refcountBlocksAt: readonly number[];
  /** Entries. */
  readonly l1Size: number;
  /** 0 where there is no table. */
  readonly l1At: number;
  /** Of a preallocated image; none, else. */
  readonly l2TablesAt: readonly number[];
  /** The first of the clusters that each of those tables maps; they lie in a run. In the data file, where there is one. */
  readonly dataAt: readonly number[];
  /** Clusters of data in the file. */
  readonly dataClusters: number;
  /** Where the LUKS header lies, and its bytes; null without one. */
  readonly crypto: { readonly at: number; readonly size: number } | null;
  /** Bytes of the file: a table at the end ends with its last entry. */
  readonly fileSize: number;
}

/** What is to be placed. */
interface Contents {
  readonly geometry: Geometry;
  readonly size: number;
  readonly l1Size: number;
  readonly l1Clusters: number;
  /** Guest clusters. */
  readonly guestClusters: number;
  readonly external: boolean;
  /** Bytes of the LUKS header. */
  readonly cryptoSize: number;
  readonly cryptoClusters: number;
}

const TOO_LARGE = "The image size is too large for file format 'qcow2'";

/** Throws an ImageError where the tables would be too large. */
export function layOutImage(options: CheckedOptions): Qcow2Layout {
  const { version, clusterSize, extendedL2, refcountBits, preallocation } = options;
  const geometry = geometryOf({
    version,
    clusterBits: Math.log2(clusterSize),
    extendedL2,
    refcountOrder: Math.log2(refcountBits),
  });
  const size = alignUp(options.size, SECTOR_SIZE);
  const l1Size = l1EntriesFor(geometry, size);
  if (l1Size * ENTRY_SIZE > LIMIT.MAX_L1_SIZE) throw tooLarge(geometry);
  if (size > MOST_SIZE) throw inexact();
  const luks = options.encryption?.luks ?? null;
  const cryptoSize = luks === null ? 0 : luksSize(luks);
  const contents: Contents = {
    cryptoSize,
    cryptoClusters: divCeil(cryptoSize, clusterSize),
    geometry,
    size,
    l1Size,
    l1Clusters: divCeil(l1Size * ENTRY_SIZE, clusterSize),
    guestClusters: divCeil(size, clusterSize),
    external: options.dataFile !== undefined,
  };
  if (preallocation === 'off' || size === 0) return inOrder(contents, 0);
  const together = preallocation !== 'metadata' && !contents.external;
  return together ? dataTogether(contents) : inOrder(contents, l1Size);
}

function tooLarge(geometry: Geometry): ImageError {
  const most = BigInt((LIMIT.MAX_L1_SIZE / ENTRY_SIZE) * geometry.l2Coverage);
  return new ImageError('invalid', 'EFBIG', `${TOO_LARGE} (try using a larger cluster size)`, {
    limit: `at most ${most} bytes: an L1 table of ${LIMIT.MAX_L1_SIZE} bytes`,
  });
}

/** QEMU makes such images, but no offset of theirs would be exact here. */
function inexact(): ImageError {
  return new ImageError('unsupported', 'EFBIG', TOO_LARGE, {
    limit: `whole sectors in at most ${Number.MAX_SAFE_INTEGER} bytes`,
  });
}

/**
 * Each thing where it comes to be when an image grows from nothing: L1 table, then L2 tables with their
 * data, then the LUKS header. A refcount block follows what first needs it.
 */
function inOrder(contents: Contents, l2Tables: number): Qcow2Layout {
  const { geometry, l1Size, l1Clusters, guestClusters, external, cryptoClusters } = contents;
  const { clusterSize } = geometry;
  const data = l2Tables === 0 || external ? 0 : guestClusters;
  const others = 1 + l1Clusters + l2Tables + data + cryptoClusters;
  const { tableClusters } = refcountsFor(others, geometry);
  const blocks = new Blocks(geometry, 1 + tableClusters);
  const l1At = blocks.take(l1Clusters);
  const l2TablesAt: number[] = [];
  const dataAt: number[] = [];
  for (let n = 0; n < l2Tables; n++) {
    const first = n * geometry.l2Entries;
    const mapped = Math.min(geometry.l2Entries, guestClusters - first);
    l2TablesAt.push(blocks.take(1));
    dataAt.push(external ? first : blocks.take(mapped));
  }
  const cryptoAt = blocks.take(cryptoClusters);
  const endsInL1 = l1Clusters > 0 && blocks.next === l1At + l1Clusters;
  return {
    ...contents,
    clusters: blocks.next,
    refcountTableAt: 1,
    refcountTableClusters: tableClusters,
    refcountBlocksAt: blocks.places,
    l1At: l1Size === 0 ? 0 : l1At,
    l2TablesAt,
    dataAt,
    dataClusters: data,
    crypto: cryptoOf(contents, cryptoAt),
    fileSize: endsInL1 ? l1At * clusterSize + l1Size * ENTRY_SIZE : blocks.next * clusterSize,
  };
}

function cryptoOf({ cryptoSize }: Contents, at: number): Qcow2Layout['crypto'] {
  return cryptoSize === 0 ? null : { at, size: cryptoSize };
}

/** Refcount blocks come to be as clusters are taken. */
class Blocks {
  readonly places: number[] = [];
  next: number;
  readonly #perBlock: number;

  /** `first`: the clusters before it are taken, and the first block comes there. */
  constructor(geometry: Geometry, first: number) {
    this.#perBlock = countsPerBlock(geometry);
    this.next = first;
    this.#cover(first);
  }

  /** The next clusters in a run. */
  take(count: number): number {
    const first = this.next;
    this.next += count;
    if (count > 0) this.#cover(this.next);
    return first;
  }

  /** Blocks for all clusters before `end`, and for themselves. */
  #cover(end: number): void {
    for (let last = end; this.places.length * this.#perBlock < last; last = this.next) {
      this.places.push(this.next++);
    }
  }
}

/**
 * The data in one run, between the refcounts and the L2 tables, of which the first lies in front. The LUKS
 * header lies behind all.
 */
function dataTogether(contents: Contents): Qcow2Layout {
  const { geometry, l1Size, l1Clusters, guestClusters, cryptoClusters } = contents;
  const { clusterSize, l2Entries } = geometry;
  const others = 1 + l1Clusters + l1Size + guestClusters + cryptoClusters;
  const { blocks, tableClusters } = refcountsFor(others, geometry);
  // Header, L2 table, refcount block, L1 table, blocks, refcount table, data, L2 tables.
  const l1At = 3;
  const restAt = l1At + l1Clusters;
  const tableAt = restAt + blocks - 1;
  const firstData = tableAt + tableClusters;
  const endOfData = firstData + guestClusters;
  const cryptoAt = endOfData + l1Size - 1;
  const clusters = cryptoAt + cryptoClusters;
  const tables = Array.from({ length: l1Size }, (_, n) => n);
  return {
    ...contents,
    clusters,
    refcountTableAt: tableAt,
    refcountTableClusters: tableClusters,
    refcountBlocksAt: [2, ...Array.from({ length: blocks - 1 }, (_, n) => restAt + n)],
    l1At,
    l2TablesAt: tables.map((n) => (n === 0 ? 1 : endOfData + n - 1)),
    dataAt: tables.map((n) => firstData + n * l2Entries),
    dataClusters: guestClusters,
    crypto: cryptoOf(contents, cryptoAt),
    fileSize: clusters * clusterSize,
  };
}

/** Entries of a refcount block. */
export function countsPerBlock({ clusterSize, refcountBits }: Geometry): number {
  return (clusterSize * 8) / refcountBits;
}

/** The refcount structures, in clusters, for `others` clusters and for themselves. */
export function refcountsFor(
  others: number,
  geometry: Geometry,
): { blocks: number; tableClusters: number } {
  let tableClusters = 1;
  let blocks = 1;
  for (;;) {
    const needed = divCeil(others + tableClusters + blocks, countsPerBlock(geometry));
    const neededTable = divCeil(needed * ENTRY_SIZE, geometry.clusterSize);
    if (needed === blocks && neededTable === tableClusters) return { blocks, tableClusters };
    // Both only grow, and by ever less.
    blocks = needed;
    tableClusters = neededTable;
  }
}
