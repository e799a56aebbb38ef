/** What the ranges of a disk are, over its whole chain: what `map` prints and `convert` goes by. */
import { fstatSync } from 'node:fs';
import { alignUp } from '../codec/bits.js';
import type { ImageDescription, LayerDescription } from '../image/description.js';
import type { Disk } from '../image/disk.js';
import { EXTENT, Extent } from '../image/extent.js';
import { hasMetadataPreallocation } from '../image/qcow2/preallocation.js';
import { FileStorage } from '../storage/file.js';

/** `st_blocks` counts these, whatever the file system's block size. */
const BLOCK_SIZE = 512;

/** One run of bytes that are alike. Offsets and lengths are bytes. */
export interface BlockStatus {
  readonly start: number;
  readonly length: number;
  /** How many layers above the one that tells have nothing there. */
  readonly depth: number;
  /** Whether that layer has something there, be it zeroes; false where no layer has. */
  readonly present: boolean;
  /** Reads as zeroes, for sure. */
  readonly zero: boolean;
  /** Bytes are stored for it, though the host may keep them as a hole: `zero` is true then, too. */
  readonly data: boolean;
  /** Where it lies in `file`; null where it lies nowhere, or compressed. */
  readonly offset: number | null;
  /** The path of the file that holds it; null where `offset` is. */
  readonly file: string | null;
  /** A part of one compressed cluster, or of several. */
  readonly compressed: boolean;
}

/** A disk of an opened image: the active one or a snapshot's. `OpenDisk` is one. */
export interface MappedDisk {
  readonly description: ImageDescription;
  readonly disk: Disk;
}

/**
 * The runs of [start, end) in order, which lies in the disk; neighbours that are alike, and adjacent
 * in their file, are one. What lies past the end of a truncated file is data: reading it fails. Throws
 * what reading the tables throws. The image is not changed meanwhile.
 */
export function* blockStatus(
  { description, disk }: MappedDisk,
  start = 0,
  end = disk.size,
): Generator<BlockStatus, void, void> {
  const layers = layersOf({ description, disk });
  let run: BlockStatus | undefined;
  for (let offset = start; offset < end; ) {
    const next = statusAt(layers, offset, end - offset);
    offset += next.length;
    if (run !== undefined && continues(run, next)) {
      run = { ...run, length: run.length + next.length };
    } else {
      if (run !== undefined) yield run;
      run = next;
    }
  }
  if (run !== undefined) yield run;
}

/** A layer as `statusAt` looks at it. */
export interface Layer {
  readonly disk: Disk;
  readonly depth: number;
  readonly description: LayerDescription;
  /** Whether holes inside of its clusters are looked for; undefined until it is needed. */
  looksForHoles?: boolean;
}

/** The layers of a disk, from the top down. */
export function layersOf({ description, disk }: MappedDisk): readonly Layer[] {
  const layers: Layer[] = [];
  let below: Disk | null = disk;
  for (let depth = 0; below !== null; depth++, below = below.backing) {
    layers.push({ disk: below, depth, description: description.layers[depth]! });
  }
  return layers;
}

function continues(run: BlockStatus, next: BlockStatus): boolean {
  return (
    run.zero === next.zero &&
    run.data === next.data &&
    run.present === next.present &&
    run.depth === next.depth &&
    run.compressed === next.compressed &&
    run.file === next.file &&
    (run.offset === null ? next.offset === null : run.offset + run.length === next.offset)
  );
}

const extent = new Extent();

/** What lies at `start`: at most `length` bytes, as far as one look at each layer tells. */
export function statusAt(layers: readonly Layer[], start: number, length: number): BlockStatus {
  let most = length;
  for (const layer of layers) {
    layer.disk.mapping.map(start, most, extent);
    most = extent.length;
    if (extent.kind !== EXTENT.UNALLOCATED) return ownStatus(layer, start);
    // Zeroes past the end of what lies below are this layer's.
    const below = layer.disk.backing;
    if (below === null || start >= below.size) return absent(layer, start, most);
    most = Math.min(most, below.size - start);
  }
  throw new RangeError('a disk has at least one layer');
}

/** Of bytes that no layer has. A cluster that is set aside for them has its place all the same. */
function absent(layer: Layer, start: number, length: number): BlockStatus {
  const { depth } = layer;
  return { ...NOTHING, start, length, depth, ...placeOf(layer, extent.preallocated) };
}

const NOTHING = {
  present: false,
  zero: true,
  data: false,
  offset: null,
  file: null,
  compressed: false,
} as const;

function placeOf(
  { description: { format, file } }: Layer,
  known: boolean,
): Pick<BlockStatus, 'offset' | 'file'> {
  const { storage, hostOffset } = extent;
  if (!known || storage === null) return { offset: null, file: null };
  // A window that is taken for the whole file counts from its own start, for other formats in it.
  const start = format === 'raw' ? (file.window?.offset ?? 0) : 0;
  return { offset: start + hostOffset, file: storage.name };
}

/** Of the extent that the layer's map has just told. */
function ownStatus(layer: Layer, start: number): BlockStatus {
  const { length, kind } = extent;
  const common = { start, length, depth: layer.depth, present: true, compressed: false };
  const isRaw = layer.description.format === 'raw';
  switch (kind) {
    case EXTENT.COMPRESSED:
      return { ...common, compressed: true, zero: false, data: true, offset: null, file: null };
    case EXTENT.ZERO:
      // The last sector of a raw file that ends within it goes on where the file would.
      return {
        ...common,
        zero: true,
        data: false,
        ...placeOf(layer, extent.preallocated || isRaw),
      };
    default: {
      const hole = asksTheHost(layer) ? cutAtHole(layer) : false;
      const data = !(hole && isRaw);
      return { ...common, length: extent.length, zero: hole, data, ...placeOf(layer, true) };
    }
  }
}

function asksTheHost(layer: Layer): boolean {
  const { description } = layer;
  layer.looksForHoles ??= description.format === 'raw' || isPreallocated(description);
  return layer.looksForHoles;
}

function isPreallocated(description: LayerDescription & { format: 'qcow2' }): boolean {
  const { file, header } = description;
  const allocated = fstatSync(file.fd).blocks * BLOCK_SIZE;
  return hasMetadataPreallocation(new FileStorage(file.fd, file.path), header, allocated);
}

/** Shortens the extent, which is data, to its part that is a hole on the host or is none: whether it is. */
function cutAtHole({ disk }: Layer): boolean {
  const storage = extent.storage!;
  const { hostOffset, length } = extent;
  const end = hostOffset + length;
  const fileEnd = storage.size();
  const readable = alignUp(fileEnd, disk.mapping.unit);
  // What is missing is no hole: whoever copies it must see that it cannot be read.
  if (hostOffset >= readable) return false;
  const last = Math.min(end, readable);
  const dataAt = hostOffset >= fileEnd ? last : storage.nextData(hostOffset, last);
  const hole = dataAt > hostOffset;
  const stop = hole ? dataAt : storage.nextHole(hostOffset, last);
  // The file may have changed since: at least it gets on.
  extent.length = Math.max(1, stop - hostOffset);
  return hole;
}
