/**
 * Walks all of an image's metadata and counts the references that each host cluster has: what the
 * refcounts should be. Nothing is changed, and nothing that is found stops the walk.
 */
import { TWO_32 } from '../../codec/bits.js';
import { ImageError, describeError } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { EXTENT } from '../extent.js';
import { type Bitmap, bitmapEntryProblem } from './bitmaps.js';
import { hasBit } from './features.js';
import type { Geometry } from './geometry.js';
import type { Qcow2Header } from './header.js';
import {
  type DecodePiece,
  hasReservedL1Bits,
  hasReservedL2Bits,
  hostOffsetOf,
  Piece,
  standardDecoder,
} from './l2.js';
import { AUTOCLEAR, INCOMPATIBLE } from './layout.js';
import { type ClusterUse, ReferenceCounts, USE, USE_NAMES } from './reference-counts.js';
import { type Snapshot, snapshotTableSize } from './snapshots.js';
import { subclusterDecoder } from './subclusters.js';
import { TableReader } from './table-reader.js';

/** Problems that are kept in words; the others are only counted. */
const MOST_WORDS = 20;

/** What counting cannot make good: pointers that lead nowhere, clusters with two uses. */
export class ProblemList {
  /** The first ones, in words. */
  readonly words: string[] = [];
  count = 0;

  add(words: string): void {
    this.count++;
    if (this.words.length < MOST_WORDS) this.words.push(words);
  }
}

export interface References {
  readonly counts: ReferenceCounts;
  readonly problems: ProblemList;
}

/**
 * Counts the references of all host clusters of the image in `storage`. `snapshots` and `bitmaps` are
 * those of the header, all of them. Memory: 4 bytes for each cluster of the file, holes left out.
 * Throws EFBIG where that would be more than 2 GiB, and the errors of the storage; whatever is wrong
 * with the image itself is in `problems`.
 */
export function countReferences(
  storage: Storage,
  header: Qcow2Header,
  snapshots: readonly Snapshot[],
  bitmaps: readonly Bitmap[],
): References {
  const walk = new ReferenceWalk(storage, header);
  walk.countHeader();
  walk.countRefcounts();
  walk.countL1Table('active L1 table', header.l1TableOffset, header.l1Size);
  walk.countSnapshots(snapshots);
  walk.countBitmaps(bitmaps);
  walk.countL2Tables();
  return walk;
}

class ReferenceWalk implements References {
  readonly counts = new ReferenceCounts();
  readonly problems = new ProblemList();
  readonly #storage: Storage;
  readonly #header: Qcow2Header;
  readonly #geometry: Geometry;
  readonly #fileSize: number;
  readonly #externalData: boolean;
  readonly #decode: DecodePiece;
  readonly #piece = new Piece();
  readonly #reader: TableReader;
  /** The reader's buffer by 32-bit words. */
  readonly #words: Uint32Array;

  constructor(storage: Storage, header: Qcow2Header) {
    const { geometry } = header;
    this.#storage = storage;
    this.#header = header;
    this.#geometry = geometry;
    this.#fileSize = storage.size();
    this.#externalData = hasBit(header.incompatibleFeatures, INCOMPATIBLE.DATA_FILE);
    this.#decode = geometry.extendedL2
      ? subclusterDecoder(geometry, this.#externalData)
      : standardDecoder(geometry, this.#externalData);
    this.#reader = new TableReader(storage);
    this.#words = new Uint32Array(this.#reader.buffer.bytes.buffer);
  }

  countHeader(): void {
    this.#addRange(USE.HEADER, 0, 1, 'header');
    const { cryptoHeader } = this.#header.extensions;
    if (cryptoHeader === null) return;
    this.#addRange(USE.HEADER, cryptoHeader.offset, cryptoHeader.length, 'encryption header');
  }

  countRefcounts(): void {
    const { refcountTableOffset: offset, refcountTableClusters } = this.#header;
    const { clusterSize } = this.#geometry;
    const size = refcountTableClusters * clusterSize;
    if (!this.#addRange(USE.REFCOUNTS, offset, size, 'refcount table')) return;
    this.#forEachEntry(offset, size, (low, high) => {
      this.#addRange(USE.REFCOUNTS, high * TWO_32 + low, clusterSize, 'refcount block');
    });
  }

  /** Counts an L1 table of `l1Size` entries, and each L2 table as often as it is referenced. */
  countL1Table(what: string, offset: number, l1Size: number): void {
    const { clusterSize } = this.#geometry;
    if (l1Size === 0 || !this.#addRange(USE.L1_TABLE, offset, l1Size * 8, what)) return;
    this.#forEachEntry(offset, l1Size * 8, (low, high, position) => {
      const host = hostOffsetOf(low, high);
      if (hasReservedL1Bits(low, high)) this.#entryProblem(what, position, 'reserved bits set');
      else if (host !== 0) this.#addRange(USE.L2_TABLE, host, clusterSize, 'L2 table');
    });
  }

  countSnapshots(snapshots: readonly Snapshot[]): void {
    const { nbSnapshots, snapshotsOffset } = this.#header;
    if (nbSnapshots !== snapshots.length) {
      this.problems.add(`snapshot table: ${snapshots.length} of ${nbSnapshots} entries known`);
    }
    if (nbSnapshots === 0) return;
    try {
      const size = snapshotTableSize(this.#storage, this.#header);
      this.#addRange(USE.SNAPSHOT_TABLE, snapshotsOffset, size, 'snapshot table');
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      this.problems.add(describeError(error));
    }
    for (const [n, { problem, l1TableOffset, l1Size }] of snapshots.entries()) {
      if (problem !== null) this.problems.add(problem);
      else this.countL1Table(`L1 table of snapshot ${n + 1}`, l1TableOffset, l1Size);
    }
  }

  /** Without the autoclear bit, what the extension says is out of date: nobody owns its clusters. */
  countBitmaps(bitmaps: readonly Bitmap[]): void {
    const extension = this.#header.extensions.bitmaps;
    const valid = hasBit(this.#header.autoclearFeatures, AUTOCLEAR.BITMAPS);
    const nbBitmaps = extension === null || !valid ? 0 : extension.nbBitmaps;
    if (nbBitmaps !== bitmaps.length) {
      this.problems.add(`bitmap directory: ${bitmaps.length} of ${nbBitmaps} entries known`);
    }
    if (extension === null || nbBitmaps === 0) return;
    const { bitmapDirectoryOffset: offset, bitmapDirectorySize: size } = extension;
    this.#addRange(USE.BITMAP, offset, size, 'bitmap directory');
    for (const bitmap of bitmaps) this.#countBitmap(bitmap);
  }

  #countBitmap({ tableOffset, tableSize }: Bitmap): void {
    if (!this.#addRange(USE.BITMAP, tableOffset, tableSize * 8, 'bitmap table')) return;
    this.#forEachEntry(tableOffset, tableSize * 8, (low, high, position) => {
      const host = hostOffsetOf(low, high);
      const problem = bitmapEntryProblem(low, high, host);
      if (problem !== null) this.#entryProblem('bitmap table', position, problem);
      else if (host !== 0) this.#addRange(USE.BITMAP, host, 1, 'bitmap cluster');
    });
  }

  /**
   * Counts what the L2 tables found so far reference: each is read once, however many L1 tables
   * share it, in the order of the file.
   */
  countL2Tables(): void {
    this.counts.forEach((cluster, count, use) => {
      if (use === USE.L2_TABLE) this.#countL2Table(cluster * this.#geometry.clusterSize, count);
    });
  }

  #countL2Table(offset: number, references: number): void {
    const { clusterSize, extendedL2, l2EntrySize } = this.#geometry;
    const words = this.#words;
    this.#reader.forEachBlock(offset, clusterSize, (length) => {
      this.#reader.buffer.bytes.subarray(0, length).swap64();
      for (let at = 0; at < length / 4; at += l2EntrySize / 4) {
        const empty = words[at] === 0 && words[at + 1] === 0;
        if (empty && (!extendedL2 || words[at + 2] === 0)) continue;
        this.#countL2Entry(at, offset + at * 4, references);
      }
    });
  }

  /** Counts the entry at `words[at]`, which lies at `position` of the file. */
  #countL2Entry(at: number, position: number, references: number): void {
    const piece = this.#piece;
    const low = this.#words[at]!;
    const high = this.#words[at + 1]!;
    this.#decode(this.#words, at, 0, piece);
    const problem = hasReservedL2Bits(this.#geometry, low, high)
      ? 'reserved bits set'
      : piece.problem;
    if (problem !== null) {
      this.#entryProblem('L2', position, problem);
    } else if (piece.kind === EXTENT.COMPRESSED) {
      this.#countCompressed(piece.hostOffset, piece.hostLength, position, references);
    } else if (piece.hostOffset !== 0 && !this.#externalData) {
      const { hostOffset } = piece;
      if (hostOffset >= this.#fileSize) this.#pastTheEnd('L2', position, hostOffset);
      else this.#add(hostOffset / this.#geometry.clusterSize, USE.DATA, references);
    }
  }

  /**
   * Every cluster that the sectors touch. The file may end within the last one, and some writers
   * count a sector more than there is: QEMU, too, lets it lie less than a cluster past the end.
   */
  #countCompressed(offset: number, length: number, position: number, references: number): void {
    const { clusterSize } = this.#geometry;
    const end = offset + length;
    if (offset >= this.#fileSize || end - this.#fileSize >= clusterSize) {
      this.#pastTheEnd('compressed L2', position, offset);
      return;
    }
    const last = Math.floor((end - 1) / clusterSize);
    for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster++) {
      this.#add(cluster, USE.DATA, references);
    }
  }

  /** Calls `visit` for the entries of a table that are not 0, by halves, with their offsets. */
  #forEachEntry(
    offset: number,
    size: number,
    visit: (low: number, high: number, position: number) => void,
  ): void {
    const { view } = this.#reader.buffer;
    this.#reader.forEachBlock(offset, size, (length, position) => {
      for (let at = 0; at < length; at += 8) {
        const high = view.getUint32(at);
        const low = view.getUint32(at + 4);
        if (low !== 0 || high !== 0) visit(low, high, position + at);
      }
    });
  }

  /** Adds the clusters of `length` bytes at `offset`. False where they cannot be read. */
  #addRange(use: ClusterUse, offset: number, length: number, what: string): boolean {
    const { clusterSize } = this.#geometry;
    if (offset % clusterSize !== 0) {
      this.problems.add(`${what} at unaligned offset 0x${offset.toString(16)}`);
      return false;
    }
    if (offset + length > this.#fileSize) {
      this.problems.add(`${what} at offset 0x${offset.toString(16)} lies past the end of file`);
      return false;
    }
    const end = Math.ceil((offset + length) / clusterSize);
    for (let cluster = offset / clusterSize; cluster < end; cluster++) this.#add(cluster, use, 1);
    return true;
  }

  #add(cluster: number, use: ClusterUse, references: number): void {
    const other = this.counts.add(cluster, use, references);
    if (other === USE.NONE) return;
    const offset = cluster * this.#geometry.clusterSize;
    this.problems.add(
      `${USE_NAMES[use]} at offset 0x${offset.toString(16)} is also ${USE_NAMES[other]}`,
    );
  }

  #entryProblem(what: string, position: number, problem: string): void {
    this.problems.add(`${what} entry at offset 0x${position.toString(16)}: ${problem}`);
  }

  #pastTheEnd(what: string, position: number, host: number): void {
    this.#entryProblem(what, position, `offset 0x${host.toString(16)} is past the end of file`);
  }
}
