/**
 * From guest offsets to extents, through an L1 table and its L2 tables: the active ones, or those of
 * a snapshot. All table reads go through the shared cache, in slices.
 */
import { ImageError } from '../../errors.js';
import type { SliceCache } from '../../shared/slice-cache.js';
import type { Storage } from '../../storage/storage.js';
import type { SectorCipher } from '../crypto/cipher-key.js';
import { EXTENT, type Extent, type Mapping } from '../extent.js';
import type { ClusterDecompressor, CompressedSource } from './compression.js';
import type { Geometry } from './geometry.js';
import { type DecodePiece, hostOffsetOf, isCopied, Piece, standardDecoder } from './l2.js';
import { subclusterDecoder } from './subclusters.js';

/** A cipher, and how sectors are numbered for it: as they lie in the file, or on the disk. */
export interface LayerCipher {
  readonly sectors: SectorCipher;
  readonly byHostOffset: boolean;
}

/** What the mappings of one image file have in common, in one thread. */
export interface Qcow2Layer extends CompressedSource {
  readonly geometry: Geometry;
  /** Where guest clusters lie: the image itself, or its external data file. */
  readonly dataStorage: Storage;
  /** What guest clusters are encrypted with; compressed ones never are. */
  readonly cipher: LayerCipher | null;
  readonly cache: SliceCache;
  readonly decompressor: ClusterDecompressor;
}

/** An L1 table and what it maps. Getters, where it changes. */
export interface L1Table {
  readonly l1TableOffset: number;
  /** Entries. */
  readonly l1Size: number;
  /** Guest bytes that may be asked for. */
  readonly size: number;
}

const L1_ENTRY_SIZE = 8;

export class Qcow2Mapping implements Mapping {
  readonly unit: number;
  readonly #layer: Qcow2Layer;
  readonly #l1: L1Table;
  readonly #decode: DecodePiece;
  readonly #entriesPerSlice: number;
  readonly #piece = new Piece();
  /** What the last look at the L1 table found. */
  #l2TableOffset = 0;
  #l2TableCopied = false;

  constructor(layer: Qcow2Layer, l1: L1Table) {
    const { geometry } = layer;
    const externalData = layer.dataStorage !== layer.storage;
    this.unit = geometry.clusterSize;
    this.#layer = layer;
    this.#l1 = l1;
    this.#decode = geometry.extendedL2
      ? subclusterDecoder(geometry, externalData)
      : standardDecoder(geometry, externalData);
    this.#entriesPerSlice = geometry.sliceSize / geometry.l2EntrySize;
  }

  get size(): number {
    return this.#l1.size;
  }

  map(offset: number, length: number, extent: Extent): void {
    const { clusterSize, l2Coverage, sliceSize } = this.#layer.geometry;
    const l1Index = Math.floor(offset / l2Coverage);
    const withinTable = offset - l1Index * l2Coverage;
    const absent = this.#lookUpL1(l1Index, Math.ceil((withinTable + length) / l2Coverage));
    if (absent > 0) {
      extent.kind = EXTENT.UNALLOCATED;
      extent.preallocated = false;
      extent.length = Math.min(length, absent * l2Coverage - withinTable);
      return;
    }
    const most = Math.min(length, l2Coverage - withinTable);
    const l2Index = Math.floor(withinTable / clusterSize);
    const first = l2Index % this.#entriesPerSlice;
    const slice = Math.floor(l2Index / this.#entriesPerSlice) * sliceSize;
    const within = withinTable - l2Index * clusterSize;
    this.#mapInSlice(this.#l2TableOffset + slice, first, within, most, extent);
    const { cipher } = this.#layer;
    extent.cipher = cipher === null ? null : cipher.sectors;
    extent.cipherOffset = cipher?.byHostOffset === true ? extent.hostOffset : offset;
    if (extent.kind === EXTENT.DATA && this.#layer.dataStorage !== this.#layer.storage) {
      this.#checkDataFileOffset(offset, extent.hostOffset);
    }
  }

  decompress(extent: Extent): Uint8Array {
    return this.#layer.decompressor.cluster(this.#layer, extent.hostOffset, extent.hostLength);
  }

  /**
   * Looks up L1 entry `l1Index`. Answers 0 where it names an L2 table, whose offset is then in
   * `#l2TableOffset`; otherwise how many entries from it on name none, `most` at most.
   */
  #lookUpL1(l1Index: number, most: number): number {
    const { l1TableOffset, l1Size } = this.#l1;
    if (l1Index >= l1Size) return most;
    const { cache, file, geometry } = this.#layer;
    const perSlice = geometry.sliceSize / L1_ENTRY_SIZE;
    const first = l1Index % perSlice;
    const last = Math.min(first + most, perSlice, first + l1Size - l1Index);
    const slice = l1TableOffset + (l1Index - first) * L1_ENTRY_SIZE;
    let absent: number;
    let index: number;
    let sequence: number;
    do {
      index = cache.find(file, slice);
      sequence = cache.sequence;
      absent = 0;
      for (let entry = first; entry < last; entry++) {
        const at = index + entry * (L1_ENTRY_SIZE / 4);
        const high = cache.words[at + 1]!;
        this.#l2TableOffset = hostOffsetOf(cache.words[at]!, high);
        this.#l2TableCopied = isCopied(high);
        if (this.#l2TableOffset !== 0) break;
        absent++;
      }
    } while (!cache.unchanged(index, sequence));
    if (absent === 0) this.#checkL2TableOffset(l1Index);
    return absent;
  }

  #checkL2TableOffset(l1Index: number): void {
    const offset = this.#l2TableOffset;
    const { clusterSize } = this.#layer.geometry;
    // The cache tells tables apart by offsets up to that limit.
    const tooLarge = offset > Number.MAX_SAFE_INTEGER;
    if (!tooLarge && offset % clusterSize === 0) return;
    const problem = tooLarge ? 'is too large' : `is not a multiple of ${clusterSize}`;
    throw this.#corrupt(
      `L2 table offset 0x${offset.toString(16)} ${problem}`,
      this.#l1.l1TableOffset + l1Index * L1_ENTRY_SIZE,
      'L1',
    );
  }

  /** Maps from entry `first` of the slice at `sliceOffset` on, at most to the slice's end. */
  #mapInSlice(
    sliceOffset: number,
    first: number,
    within: number,
    length: number,
    extent: Extent,
  ): void {
    const { cache, file, geometry } = this.#layer;
    const { l2EntrySize } = geometry;
    let index: number;
    let sequence: number;
    let last: number;
    do {
      index = cache.find(file, sliceOffset);
      sequence = cache.sequence;
      last = this.#join(cache.words, index, first, within, length, extent);
    } while (!cache.unchanged(index, sequence));
    const { problem } = this.#piece;
    if (problem !== null) throw this.#corrupt(problem, sliceOffset + last * l2EntrySize, 'L2');
  }

  /**
   * Joins the pieces of adjacent entries that continue each other into `extent`. Answers the last
   * entry that was looked at; if that is invalid, the extent means nothing.
   */
  #join(
    words: Uint32Array,
    index: number,
    first: number,
    within: number,
    length: number,
    extent: Extent,
  ): number {
    const piece = this.#piece;
    const entryWords = this.#layer.geometry.l2EntrySize / 4;
    const { clusterSize } = this.#layer.geometry;
    this.#decode(words, index + first * entryWords, within, piece);
    const hostOffset = piece.hostOffset;
    const { kind, copied, hasHost } = piece;
    extent.kind = kind;
    extent.copied = copied && this.#l2TableCopied;
    extent.storage = this.#layer.dataStorage;
    extent.hostOffset = hostOffset;
    extent.hostLength = piece.hostLength;
    extent.skip = within;
    extent.preallocated = hasHost;
    let run = piece.length;
    // A piece that ends inside its cluster is followed by one of another kind.
    let whole = within + run === clusterSize;
    let entry = first;
    while (whole && run < length && entry + 1 < this.#entriesPerSlice) {
      if (kind === EXTENT.COMPRESSED || piece.problem !== null) break;
      entry++;
      this.#decode(words, index + entry * entryWords, 0, piece);
      const alike = piece.kind === kind && piece.copied === copied;
      if (!alike || !continues(hasHost, hostOffset, run, piece)) {
        // What comes next is the next call's; its problems, too.
        piece.problem = null;
        break;
      }
      run += piece.length;
      whole = piece.length === clusterSize;
    }
    extent.length = Math.min(run, length);
    return entry;
  }

  #checkDataFileOffset(offset: number, hostOffset: number): void {
    if (offset === hostOffset) return;
    throw this.#corrupt(
      `data file offset 0x${hostOffset.toString(16)} does not match the guest's`,
      offset,
      'guest',
    );
  }

  #corrupt(problem: string, offset: number, where: string): ImageError {
    const { name } = this.#layer.storage;
    return new ImageError(
      'corrupt',
      'EIO',
      `${name}: ${problem} (${where} offset 0x${offset.toString(16)})`,
      { path: name, offset },
    );
  }
}

/** Whether host clusters go on where a run of `run` bytes ends; without any, it is one run too. */
function continues(hasHost: boolean, hostOffset: number, run: number, next: Piece): boolean {
  if (!hasHost || !next.hasHost) return hasHost === next.hasHost;
  return next.hostOffset === hostOffset + run;
}
