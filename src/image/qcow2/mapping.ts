/**
 * From guest offsets to extents, through an L1 table and its L2 tables: the active ones, or those of
 * a snapshot. All table reads go through the shared cache, in slices.
 */
import { ImageError } from '../../errors.js';
import type { SliceCache } from '../../shared/slice-cache.js';
import type { Storage } from '../../storage/storage.js';
import { EXTENT, type Extent, type Mapping } from '../extent.js';
import type { ClusterDecompressor } from './compression.js';
import type { Geometry } from './geometry.js';
import { type DecodePiece, hostOffsetOf, Piece, standardDecoder } from './l2.js';
import { subclusterDecoder } from './subclusters.js';

/** What the mappings of one image file have in common, in one thread. */
export interface Qcow2Layer {
  readonly geometry: Geometry;
  readonly storage: Storage;
  /** Where guest clusters lie: the image itself, or its external data file. */
  readonly dataStorage: Storage;
  /** The image's number in the cache. */
  readonly file: number;
  readonly cache: SliceCache;
  readonly decompressor: ClusterDecompressor;
}

/** An L1 table and what it maps. */
export interface L1Table {
  readonly l1TableOffset: number;
  /** Entries. */
  readonly l1Size: number;
  /** Guest bytes that may be asked for. */
  readonly size: number;
}

const L1_ENTRY_SIZE = 8;

export class Qcow2Mapping implements Mapping {
  readonly size: number;
  readonly unit: number;
  readonly #layer: Qcow2Layer;
  readonly #l1: L1Table;
  readonly #decode: DecodePiece;
  readonly #entriesPerSlice: number;
  readonly #piece = new Piece();

  constructor(layer: Qcow2Layer, l1: L1Table) {
    const { geometry } = layer;
    const externalData = layer.dataStorage !== layer.storage;
    this.size = l1.size;
    this.unit = geometry.clusterSize;
    this.#layer = layer;
    this.#l1 = l1;
    this.#decode = geometry.extendedL2
      ? subclusterDecoder(geometry, externalData)
      : standardDecoder(geometry, externalData);
    this.#entriesPerSlice = geometry.sliceSize / geometry.l2EntrySize;
  }

  map(offset: number, length: number, extent: Extent): void {
    const { clusterSize, l2Coverage, sliceSize } = this.#layer.geometry;
    const l1Index = Math.floor(offset / l2Coverage);
    const withinTable = offset - l1Index * l2Coverage;
    const l2TableOffset = this.#l2TableOffset(l1Index);
    if (l2TableOffset === 0) {
      const covered = this.#unallocatedTables(l1Index) * l2Coverage;
      extent.kind = EXTENT.UNALLOCATED;
      extent.preallocated = false;
      extent.length = Math.min(length, covered - withinTable);
      return;
    }
    const most = Math.min(length, l2Coverage - withinTable);
    const l2Index = Math.floor(withinTable / clusterSize);
    const first = l2Index % this.#entriesPerSlice;
    const slice = Math.floor(l2Index / this.#entriesPerSlice) * sliceSize;
    const within = withinTable - l2Index * clusterSize;
    this.#mapInSlice(l2TableOffset + slice, first, within, most, extent);
    if (extent.kind === EXTENT.DATA && this.#layer.dataStorage !== this.#layer.storage) {
      this.#checkDataFileOffset(offset, extent.hostOffset);
    }
  }

  decompress(extent: Extent): Uint8Array {
    const { decompressor, storage } = this.#layer;
    return decompressor.cluster(storage, extent.hostOffset, extent.hostLength);
  }

  /** Offset of the L2 table that L1 entry `l1Index` names, 0 where there is none. */
  #l2TableOffset(l1Index: number): number {
    if (l1Index >= this.#l1.l1Size) return 0;
    const { cache, geometry } = this.#layer;
    const within = (l1Index * L1_ENTRY_SIZE) % geometry.sliceSize;
    let low: number;
    let high: number;
    let index: number;
    let sequence: number;
    do {
      index = this.#findL1Slice(l1Index);
      sequence = cache.sequence;
      low = cache.words[index + within / 4]!;
      high = cache.words[index + within / 4 + 1]!;
    } while (!cache.unchanged(index, sequence));
    const offset = hostOffsetOf(low, high);
    // The cache tells tables apart by offsets up to that limit.
    if (offset > Number.MAX_SAFE_INTEGER) {
      throw this.#corrupt(
        `L2 table offset 0x${offset.toString(16)} is too large`,
        this.#l1.l1TableOffset + l1Index * L1_ENTRY_SIZE,
        'L1',
      );
    }
    if (offset % geometry.clusterSize !== 0) {
      throw this.#corrupt(
        `L2 table offset 0x${offset.toString(16)} is not a multiple of ${geometry.clusterSize}`,
        this.#l1.l1TableOffset + l1Index * L1_ENTRY_SIZE,
        'L1',
      );
    }
    return offset;
  }

  /** Finds the slice of the L1 table that has entry `l1Index`, as the cache's `find` does. */
  #findL1Slice(l1Index: number): number {
    const { cache, file, geometry } = this.#layer;
    const at = l1Index * L1_ENTRY_SIZE;
    const slice = at - (at % geometry.sliceSize);
    const length = Math.min(geometry.sliceSize, this.#l1.l1Size * L1_ENTRY_SIZE - slice);
    return cache.find(file, this.#l1.l1TableOffset + slice, length);
  }

  /** How many L1 entries from `l1Index` on, one at least, name no L2 table; within a slice. */
  #unallocatedTables(l1Index: number): number {
    const { cache, geometry } = this.#layer;
    const first = l1Index % (geometry.sliceSize / L1_ENTRY_SIZE);
    const most = Math.min(geometry.sliceSize / L1_ENTRY_SIZE - first, this.#l1.l1Size - l1Index);
    if (most <= 0) return Number.POSITIVE_INFINITY;
    let count: number;
    let index: number;
    let sequence: number;
    do {
      index = this.#findL1Slice(l1Index);
      sequence = cache.sequence;
      for (count = 1; count < most; count++) {
        const at = index + (first + count) * (L1_ENTRY_SIZE / 4);
        if (hostOffsetOf(cache.words[at]!, cache.words[at + 1]!) !== 0) break;
      }
    } while (!cache.unchanged(index, sequence));
    return count;
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
    const { sliceSize, l2EntrySize } = geometry;
    let index: number;
    let sequence: number;
    let last: number;
    do {
      index = cache.find(file, sliceOffset, sliceSize);
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
    const kind = piece.kind;
    extent.kind = kind;
    extent.storage = this.#layer.dataStorage;
    extent.hostOffset = hostOffset;
    extent.hostLength = piece.hostLength;
    extent.skip = within;
    extent.preallocated = hostOffset !== 0;
    let run = piece.length;
    // A piece that ends inside its cluster is followed by one of another kind.
    let whole = within + run === clusterSize;
    let entry = first;
    while (whole && run < length && entry + 1 < this.#entriesPerSlice) {
      if (kind === EXTENT.COMPRESSED || piece.problem !== null) break;
      entry++;
      this.#decode(words, index + entry * entryWords, 0, piece);
      if (piece.kind !== kind || !continues(kind, hostOffset, run, piece.hostOffset)) {
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
function continues(kind: number, hostOffset: number, run: number, next: number): boolean {
  if (kind !== EXTENT.DATA && hostOffset === 0) return next === 0;
  return next === hostOffset + run;
}
