/**
 * Where two disks that share files differ: a snapshot and the disk, two snapshots, two images of a chain.
 * Their maps are compared, and no byte is read: what lies at the same place of the same file is the same.
 */
import type { Disk } from './disk.js';
import { EXTENT, Extent } from './extent.js';

export interface ComparedDisk {
  readonly disk: Disk;
  /** What tells each layer's file from others, from the top down: equal where the file is the same. */
  readonly files: readonly (string | number)[];
}

/** Where a run of bytes of a disk lies. */
interface Place {
  kind: typeof EXTENT.DATA | typeof EXTENT.COMPRESSED | typeof EXTENT.ZERO;
  length: number;
  file: string | number;
  offset: number;
  skip: number;
}

export class MapComparison {
  readonly #first: ComparedDisk;
  readonly #second: ComparedDisk;
  readonly #one: Place = { kind: EXTENT.ZERO, length: 0, file: 0, offset: 0, skip: 0 };
  readonly #other: Place = { kind: EXTENT.ZERO, length: 0, file: 0, offset: 0, skip: 0 };
  readonly #extent = new Extent();
  /** Bytes of the larger disk; the other one reads as zeroes behind its end. */
  readonly size: number;

  // What the last `look` found:
  length = 0;
  /** Whether the run may differ; else it is the same for sure. */
  differs = false;
  /** Whether the second disk reads as zeroes there, for sure. */
  zero = false;

  constructor(first: ComparedDisk, second: ComparedDisk) {
    this.#first = first;
    this.#second = second;
    this.size = Math.max(first.disk.size, second.disk.size);
  }

  /** Looks at a run at `offset`, at least a byte long, at most `most`. Throws what reading tables throws. */
  look(offset: number, most = this.size - offset): void {
    const [one, other] = [this.#one, this.#other];
    this.#find(this.#first, offset, most, one);
    this.#find(this.#second, offset, one.length, other);
    this.length = other.length;
    this.zero = other.kind === EXTENT.ZERO;
    this.differs = !areSame(one, other);
  }

  #find({ disk, files }: ComparedDisk, offset: number, most: number, place: Place): void {
    const extent = this.#extent;
    place.kind = EXTENT.ZERO;
    place.length = most;
    let layer: Disk | null = disk;
    for (let depth = 0; layer !== null && offset < layer.size; depth++, layer = layer.backing) {
      layer.mapping.map(offset, Math.min(place.length, layer.size - offset), extent);
      place.length = extent.length;
      if (extent.kind === EXTENT.UNALLOCATED) continue;
      place.kind = extent.kind;
      place.file = files[depth]!;
      place.offset = extent.hostOffset;
      place.skip = extent.skip;
      return;
    }
  }
}

function areSame(one: Place, other: Place): boolean {
  if (one.kind !== other.kind) return false;
  if (one.kind === EXTENT.ZERO) return true;
  if (one.file !== other.file || one.offset !== other.offset) return false;
  return one.kind === EXTENT.DATA || one.skip === other.skip;
}
