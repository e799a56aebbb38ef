/**
 * An opened image as plain data: the main thread makes it once and hands it to every thread, each
 * of which attaches to it. Descriptors are valid in all of them.
 */
import type { FaultPlan } from '../storage/faults.js';
import type { FilePatches } from '../storage/patched.js';
import type { ImageKey } from './crypto/cipher-key.js';
import type { FormatParts, NamedBacking, OtherFormat } from './format.js';
import { SECTOR_SIZE } from './extent.js';
import { alignUp } from '../codec/bits.js';
import type { Bitmap } from './qcow2/bitmaps.js';
import type { Qcow2Header } from './qcow2/header.js';
import { COMPRESSION_TYPE } from './qcow2/layout.js';
import type { Snapshot } from './qcow2/snapshots.js';
import type { NullDisk, Window } from './spec.js';

export interface FileDescription {
  readonly path: string;
  readonly fd: number;
  /** No file: the descriptor is one of /dev/null. */
  readonly nullDisk?: NullDisk;
  /** The same file, opened with O_DIRECT, where the host's page cache is not to be used. */
  readonly directFd?: number;
  /** Where it fails on purpose. */
  readonly faults?: FaultPlan;
  /** Changes that are laid over it. */
  readonly patches?: FilePatches;
  /** The part of the file that is the image, where it is not all of it. */
  readonly window?: Window;
}

export interface RawDescription {
  readonly format: 'raw';
  readonly file: FileDescription;
  readonly fileSize: number;
  /** What it is opened as, where that is no format, but a way to a file. */
  readonly driver?: string;
  /** Its format was not stated, but guessed: it is written to all the same. */
  readonly probed?: boolean;
}

export interface Qcow2Description {
  readonly format: 'qcow2';
  readonly file: FileDescription;
  readonly dataFile: FileDescription | null;
  readonly header: Qcow2Header;
  readonly snapshots: readonly Snapshot[];
  /** As they were when the image was opened. */
  readonly bitmaps: readonly Bitmap[];
  /** What it is encrypted with; null where it is not, and where it was opened without its key. */
  readonly key: ImageKey | null;
  /** The dirty bit is set: its refcounts may be wrong. Never in an image open for writing. */
  readonly needsRepair: boolean;
}

/** Of the formats that have a driver (`formats.ts`). */
export interface OtherDescription extends FormatParts {
  readonly format: OtherFormat;
  readonly file: FileDescription;
  /** Files that it names as parts of its disk. */
  readonly extents: readonly FileDescription[];
}

export type LayerDescription = RawDescription | Qcow2Description | OtherDescription;

/** All the files that a layer is read from: its own first. */
export function filesOf(layer: LayerDescription): readonly FileDescription[] {
  if (layer.format === 'raw') return [layer.file];
  if (layer.format !== 'qcow2') return [layer.file, ...layer.extents];
  return layer.dataFile === null ? [layer.file] : [layer.file, layer.dataFile];
}

/** Bytes of a layer's disk. */
export function layerSize(layer: LayerDescription): number {
  if (layer.format === 'raw') return alignUp(layer.fileSize, SECTOR_SIZE);
  return layer.format === 'qcow2' ? layer.header.size : layer.facts.size;
}

/** The backing file that a layer names; null where it names none. */
export function namedBacking(layer: LayerDescription): NamedBacking | null {
  if (layer.format === 'raw') return null;
  if (layer.format !== 'qcow2') return layer.facts.backing;
  const { backingFile: name, extensions } = layer.header;
  // As QEMU: an empty name states no format.
  return name === null ? null : { name, format: extensions.backingFormat || null };
}

/** Bytes of a layer's clusters; null where it has none. */
export function layerClusterSize(layer: LayerDescription): number | null {
  if (layer.format === 'raw') return null;
  return layer.format === 'qcow2' ? layer.header.geometry.clusterSize : layer.facts.clusterSize;
}

/** Its compression type, by qcow2's numbers; what others have that hold compressed data is zlib's. */
export function layerCompression(layer: LayerDescription): number {
  return layer.format === 'qcow2' ? layer.header.compressionType : COMPRESSION_TYPE.ZLIB;
}

/** A chain of layers: the image itself first, its deepest backing file last. */
export interface ImageDescription {
  readonly layers: readonly [LayerDescription, ...LayerDescription[]];
  /** Whether the first layer's file is open for writing; the others never are. */
  readonly writable: boolean;
}
