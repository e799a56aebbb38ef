/**
 * An opened image as plain data: the main thread makes it once and hands it to every thread, each
 * of which attaches to it. Descriptors are valid in all of them.
 */
import type { Bitmap } from './qcow2/bitmaps.js';
import type { Qcow2Header } from './qcow2/header.js';
import type { Snapshot } from './qcow2/snapshots.js';

export interface FileDescription {
  readonly path: string;
  readonly fd: number;
}

export interface RawDescription {
  readonly format: 'raw';
  readonly file: FileDescription;
  readonly fileSize: number;
}

export interface Qcow2Description {
  readonly format: 'qcow2';
  readonly file: FileDescription;
  readonly dataFile: FileDescription | null;
  readonly header: Qcow2Header;
  readonly snapshots: readonly Snapshot[];
  readonly bitmaps: readonly Bitmap[];
}

export type LayerDescription = RawDescription | Qcow2Description;

/** A chain of layers: the image itself first, its deepest backing file last. */
export interface ImageDescription {
  readonly layers: readonly [LayerDescription, ...LayerDescription[]];
}
