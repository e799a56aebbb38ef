/** What the ranges of a disk are, over its whole chain: what `map` prints and `convert` goes by. */
import { fstatSync } from 'node:fs';
import { alignUp } from '../codec/bits.js';
import type { ImageDescription, LayerDescription, Qcow2Description } from '../image/description.js';
import type { Disk } from '../image/disk.js';
import { EXTENT, Extent } from '../image/extent.js';
import { hasMetadataPreallocation } from '../image/qcow2/preallocation.js';
import { storageOf } from '../image/file-storage.js';
import type { Storage } from '../storage/storage.js';

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
  /** Where it lies in `file`; null where it lies nowhere, or compressed, or encrypted. */
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
  let run: Growing | undefined;
  for (let offset = start; offset < end; ) {
    const next = statusAt(layers, offset, end - offset);
    offset += next.length;
    if (run !== undefined && continues(run, next)) {
      run.length += next.length;
    } else {
      if (run !== undefined) yield run;
      run = next;
    }
  }
  if (run !== undefined) yield run;
}

/** A layer of the chain, and what is known of it so far. */
export interface Layer {
  readonly disk: Disk;
  readonly depth: number;
  readonly description: LayerDescription;
  /** Whether holes inside of its clusters are looked for; undefined until it is needed. */
  looksForHoles?: boolean;
  /** What the host said last of the file with the layer's data. */
  readonly host: HostRun;
}

/** The layers of a disk, from the top down. */
export function layersOf({ description, disk }: MappedDisk): readonly Layer[] {
  const layers: Layer[] = [];
  let below: Disk | null = disk;
  for (let depth = 0; below !== null; depth++, below = below.backing) {
    const host = { start: 0, end: 0, hole: false, fileEnd: undefined };
    layers.push({ disk: below, depth, description: description.layers[depth]!, host });
  }
  return layers;
}

/** A run of a file that is a hole on the host, or is none. */
interface HostRun {
  start: number;
  end: number;
  hole: boolean;
  /** The file's size; undefined until it is needed. */
  fileEnd: number | undefined;
}

/** A run that more may be joined to. */
type Growing = BlockStatus & { length: number };

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
export function statusAt(layers: readonly Layer[], start: number, length: number): Growing {
  let most = length;
  for (const layer of layers) {
    layer.disk.mapping.map(start, most, extent);
    most = extent.length;
    if (extent.kind !== EXTENT.UNALLOCATED) return ownStatus(layer, start);
    // Zeroes past the end of what lies below are this layer's.
    const below = layer.disk.backing;
    if (below === null || start >= below.size) {
      // A cluster that is set aside for them has its place all the same.
      return status(layer, start, most, false, true, false, extent.preallocated);
    }
    most = Math.min(most, below.size - start);
  }
  throw new RangeError('a disk has at least one layer');
}

/** The same, and where it lies, be it compressed or encrypted. */
export interface PlacedStatus extends BlockStatus {
  /** In the file of the layer that tells, or of its data; null where it lies nowhere. */
  readonly place: number | null;
  /** As much as it takes there at most; 0 where it lies nowhere. */
  readonly placeLength: number;
  /** Whether snapshots refer to the same host clusters: their COPIED flag is clear. */
  readonly shared: boolean;
}

export function placedAt(layers: readonly Layer[], start: number, length: number): PlacedStatus {
  const found = statusAt(layers, start, length);
  const { kind, preallocated, hostOffset, hostLength, copied } = extent;
  const isCompressed = kind === EXTENT.COMPRESSED;
  const lies = kind === EXTENT.DATA ? found.data : isCompressed || preallocated;
  const isQcow2 = layers[found.depth]!.description.format === 'qcow2';
  return {
    ...found,
    place: lies ? hostOffset : null,
    placeLength: lies ? (isCompressed ? hostLength : found.length) : 0,
    shared: kind === EXTENT.DATA && isQcow2 && !copied,
  };
}

/** Of the extent that the layer's map has just told. */
function ownStatus(layer: Layer, start: number): Growing {
  const isRaw = layer.description.format === 'raw';
  switch (extent.kind) {
    case EXTENT.COMPRESSED:
      return status(layer, start, extent.length, true, false, true, false);
    case EXTENT.ZERO:
      // The last sector of a raw file that ends within it goes on where the file would.
      return status(layer, start, extent.length, true, true, false, extent.preallocated || isRaw);
    default: {
      const hole = extent.cipher === null && asksTheHost(layer) && cutAtHole(layer);
      return status(layer, start, extent.length, true, hole, !(hole && isRaw), true);
    }
  }
}

/** `placed`: whether the extent lies somewhere in a file as it is. */
function status(
  { description, depth }: Layer,
  start: number,
  length: number,
  present: boolean,
  zero: boolean,
  data: boolean,
  placed: boolean,
): Growing {
  const { storage, hostOffset, kind, cipher } = extent;
  const compressed = kind === EXTENT.COMPRESSED;
  let offset: number | null = null;
  let file: string | null = null;
  // Who looks for it in the file would not find it there.
  if (placed && storage !== null && cipher === null) {
    // A window that is taken for the whole file counts from its own start, for other formats in it.
    const { window } = description.file;
    const windowStart = description.format === 'raw' && window !== undefined ? window.offset : 0;
    offset = windowStart + hostOffset;
    file = storage.name;
  }
  return { start, length, depth, present, zero, data, offset, file, compressed };
}

function asksTheHost(layer: Layer): boolean {
  const { description } = layer;
  layer.looksForHoles ??=
    description.format === 'raw' ||
    (description.format === 'qcow2'
      ? isPreallocated(description)
      : description.facts.hasHostHoles === true);
  return layer.looksForHoles;
}

function isPreallocated({ file, header }: Qcow2Description): boolean {
  const allocated = fstatSync(file.fd).blocks * BLOCK_SIZE;
  return hasMetadataPreallocation(storageOf(file), header, allocated);
}

/** Shortens the extent, which is data, to its part that is a hole on the host or is none: whether it is. */
function cutAtHole({ disk, host }: Layer): boolean {
  const storage = extent.storage!;
  const { hostOffset, length } = extent;
  host.fileEnd ??= storage.size();
  const readable = alignUp(host.fileEnd, disk.mapping.unit);
  // What is missing is no hole: whoever copies it must see that it cannot be read.
  if (hostOffset >= readable) return false;
  if (hostOffset < host.start || hostOffset >= host.end) {
    askHost(host, storage, hostOffset, readable);
  }
  extent.length = Math.min(length, host.end - hostOffset);
  return host.hole;
}

function askHost(host: HostRun, storage: Storage, position: number, end: number): void {
  const dataAt = position >= host.fileEnd! ? end : storage.nextData(position, end);
  host.hole = dataAt > position;
  host.start = position;
  // The file may have changed since: at least it gets on.
  host.end = Math.max(position + 1, host.hole ? dataAt : storage.nextHole(position, end));
}
