/**
 * Where a disk's bytes lie, to be drawn: run by run where there are few, else in cells of one size, so that a
 * picture of any disk stays small. Offsets and lengths are bytes.
 */
import { layerClusterSize } from '../image/description.js';
import type { Steps } from '../image/steps.js';
import {
  type Layer,
  layersOf,
  type MappedDisk,
  type PlacedStatus,
  placedAt,
} from './block-status.js';

/** What a byte of the disk can be. */
export type Content = 'data' | 'shared' | 'compressed' | 'reserved' | 'zero' | 'unallocated';

/** Bytes that are alike: what they are, and the layer that has them. */
export interface Kind {
  readonly content: Content;
  /** How many layers above have nothing there; of what is unallocated 0. */
  readonly depth: number;
}

/** A part of the disk. */
export interface Cell {
  readonly start: number;
  readonly length: number;
  /** Bytes of each kind in it, by the kind's index; one alone where the layout is exact. */
  readonly shares: ReadonlyMap<number, number>;
  /** Where the first of its bytes that lie in a file do, and in which layer's; null where none do. */
  readonly place: { readonly offset: number; readonly depth: number } | null;
  /** Runs in it that do not continue the one before them. */
  readonly pieces: number;
}

/** All of one kind. */
export interface KindTotals {
  readonly bytes: number;
  readonly runs: number;
}

/** How a layer's bytes lie in its file, in the order of the disk. */
export interface Fragmentation {
  readonly bytes: number;
  /** Runs that lie in one piece in the file. */
  readonly pieces: number;
  /** Of these, those that lie before the one that comes first on the disk. */
  readonly backwards: number;
}

export interface DiskLayout {
  readonly start: number;
  readonly end: number;
  /** Each cell is a run of one kind, in one piece. */
  readonly exact: boolean;
  /** Bytes of a cell, where it is not. */
  readonly cellSize: number | null;
  readonly cells: readonly Cell[];
  readonly kinds: readonly Kind[];
  /** By the kinds' indexes. */
  readonly totals: readonly KindTotals[];
  /** By the layers' depths. */
  readonly fragmentation: readonly Fragmentation[];
  /** Clusters of which only some subclusters are allocated. */
  readonly partialClusters: number;
}

export interface LayoutOptions {
  readonly start?: number;
  readonly end?: number;
  /** Runs that are told exactly, and cells at most. */
  readonly most: number;
}

/** Between two times that it says how far it is. */
const LOOKS_PER_STEP = 4096;

/** Looks at all of the disk's tables; throws what reading them throws. The image is not changed meanwhile. */
export function* layoutSteps(source: MappedDisk, options: LayoutOptions): Steps<DiskLayout> {
  const { start = 0, end = source.disk.size, most } = options;
  const layers = layersOf(source);
  const clusterSize = layerClusterSize(source.description.layers[0]) ?? 1;
  const gathered = new Gathering(start, end, most, clusterSize, layers.length);
  yield* walk(layers, start, end, gathered);
  return gathered.layout(partialClusters(source, clusterSize, gathered));
}

function* walk(
  layers: readonly Layer[],
  start: number,
  end: number,
  gathered: Gathering,
): Steps<void> {
  let looks = 0;
  for (let offset = start; offset < end; ) {
    const found = placedAt(layers, offset, end - offset);
    gathered.add(found);
    offset += found.length;
    if (++looks % LOOKS_PER_STEP === 0) yield (offset - start) / (end - start);
  }
}

/** Only images with subclusters have any. */
function partialClusters({ description }: MappedDisk, size: number, gathered: Gathering): number {
  const [top] = description.layers;
  const hasSubclusters = top.format === 'qcow2' && top.header.geometry.extendedL2;
  return hasSubclusters && size > 1 ? gathered.splitClusters : 0;
}

/** What is told of a run: more may be joined to it. */
interface Run {
  readonly start: number;
  length: number;
  readonly kind: number;
  readonly place: number | null;
  readonly depth: number;
}

interface OpenCell {
  readonly start: number;
  readonly length: number;
  readonly shares: Map<number, number>;
  place: Cell['place'];
  pieces: number;
}

class Gathering {
  readonly #start: number;
  readonly #end: number;
  readonly #most: number;
  readonly #clusterSize: number;
  readonly #kinds: Kind[] = [];
  readonly #indexes = new Map<string, number>();
  readonly #totals: { bytes: number; runs: number }[] = [];
  readonly #fragments: { bytes: number; pieces: number; backwards: number; next: number }[];
  #runs: Run[] = [];
  /** Null as long as there are few runs. */
  #cells: OpenCell[] | null = null;
  readonly #cellSize: number;
  #last: Run | null = null;
  /** Where the last run ends in its file, give or take `#slack`. */
  #placeEnd = 0;
  #slack = 0;
  #splitCluster = -1;
  splitClusters = 0;

  constructor(start: number, end: number, most: number, clusterSize: number, layers: number) {
    this.#start = start;
    this.#end = end;
    this.#most = most;
    this.#clusterSize = clusterSize;
    const least = Math.max(clusterSize, (end - start) / most, 512);
    this.#cellSize = 2 ** Math.ceil(Math.log2(least));
    this.#fragments = Array.from({ length: layers }, () => {
      return { bytes: 0, pieces: 0, backwards: 0, next: -1 };
    });
  }

  add(found: PlacedStatus): void {
    const kind = this.#indexOf(found);
    const last = this.#last;
    const isPlaced = found.place !== null;
    const continues =
      isPlaced === (last?.place !== null) &&
      (!isPlaced || Math.abs(found.place! - this.#placeEnd) <= this.#slack);
    this.#countPlace(found);
    this.#placeEnd = (found.place ?? 0) + found.placeLength;
    // Compressed data is known to end within a sector.
    this.#slack = found.compressed ? 512 : 0;
    this.#totals[kind]!.bytes += found.length;
    if (last !== null && last.kind === kind && continues) {
      last.length += found.length;
      if (this.#cells !== null) this.#addToCells({ ...found, kind }, false);
      return;
    }
    this.#totals[kind]!.runs++;
    this.#countSplit(found.start, last, kind);
    const { start, length, place, depth } = found;
    this.#last = { start, length, kind, place, depth };
    if (this.#cells !== null) this.#addToCells(this.#last, true);
    else this.#runs.push(this.#last);
    if (this.#runs.length > this.#most) this.#coarsen();
  }

  layout(partial: number): DiskLayout {
    const exact = this.#cells === null;
    const cells = this.#cells ?? this.#runs.map(cellOf);
    return {
      start: this.#start,
      end: this.#end,
      exact,
      cellSize: exact ? null : this.#cellSize,
      cells,
      kinds: this.#kinds,
      totals: this.#totals,
      fragmentation: this.#fragments.map(({ next: _, ...rest }) => rest),
      partialClusters: partial,
    };
  }

  #indexOf(found: PlacedStatus): number {
    const content = contentOf(found);
    const depth = content === 'unallocated' ? 0 : found.depth;
    const key = `${content} ${depth}`;
    let index = this.#indexes.get(key);
    if (index === undefined) {
      index = this.#kinds.push({ content, depth }) - 1;
      this.#indexes.set(key, index);
      this.#totals.push({ bytes: 0, runs: 0 });
    }
    return index;
  }

  #countPlace({ place, placeLength, depth, length, data, compressed }: PlacedStatus): void {
    if (place === null || !data) return;
    const fragments = this.#fragments[depth]!;
    const slack = compressed ? 512 : 0;
    if (fragments.next < 0 || Math.abs(place - fragments.next) > slack) {
      fragments.pieces++;
      if (place < fragments.next) fragments.backwards++;
    }
    fragments.next = place + placeLength;
    fragments.bytes += length;
  }

  /** A cluster in which one kind ends and another begins. */
  #countSplit(start: number, last: Run | null, kind: number): void {
    if (last === null || last.kind === kind || start % this.#clusterSize === 0) return;
    const cluster = Math.floor(start / this.#clusterSize);
    if (cluster !== this.#splitCluster) this.splitClusters++;
    this.#splitCluster = cluster;
  }

  /** There are too many runs: from now on cells are all that is kept. */
  #coarsen(): void {
    const size = this.#cellSize;
    const count = Math.ceil((this.#end - this.#start) / size);
    this.#cells = Array.from({ length: count }, (_, index) => {
      const start = this.#start + index * size;
      const length = Math.min(size, this.#end - start);
      return { start, length, shares: new Map(), place: null, pieces: 0 };
    });
    const runs = this.#runs;
    this.#runs = [];
    for (const run of runs) this.#addToCells(run, true);
  }

  /** `begins`: it does not go on where the one before it ends. */
  #addToCells({ start, length, kind, place, depth }: Run, begins: boolean): void {
    const size = this.#cellSize;
    for (let offset = start; offset < start + length; ) {
      const cell = this.#cells![Math.floor((offset - this.#start) / size)]!;
      const part = Math.min(start + length, cell.start + cell.length) - offset;
      cell.shares.set(kind, (cell.shares.get(kind) ?? 0) + part);
      if (place !== null) {
        cell.place ??= { offset: place + (offset - start), depth };
        if (begins && offset === start) cell.pieces++;
      }
      offset += part;
    }
  }
}

function contentOf({ present, data, compressed, shared, place, zero }: PlacedStatus): Content {
  if (compressed) return 'compressed';
  if (data && !zero) return shared ? 'shared' : 'data';
  if (place !== null) return 'reserved';
  return present ? 'zero' : 'unallocated';
}

function cellOf({ start, length, kind, place, depth }: Run): Cell {
  return {
    ...{ start, length, shares: new Map([[kind, length]]) },
    place: place === null ? null : { offset: place, depth },
    pieces: place === null ? 0 : 1,
  };
}
