/**
 * An image as it is served in a mount: the main thread opens it and makes its memory, and every worker
 * makes operations of that.
 */
import { AttachedImage } from '../image/attach.js';
import type { ImageDescription } from '../image/description.js';
import {
  allocateImageMemory,
  type ImageMemory,
  type MemoryOptions,
  recoverOwner,
} from '../image/memory.js';
import { ImageState, type KeptViews } from '../shared/image-state.js';
import { MountState, allocateMountState } from '../shared/mount-state.js';
import { Changes } from './changes.js';
import type { MountFacts } from './facts.js';
import { FlushedImage, type FlushedImageOptions } from './flushed-image.js';
import {
  allocateOpenFiles,
  OpenFiles,
  type OpenFilesMemory,
  recoverOpenFiles,
} from './open-files.js';
import { Operations } from './operations.js';
import { Tree } from './tree.js';

/** How long the main thread waits for workers that hold the image, before it looks whether they live. */
const FLUSH_PATIENCE_MS = 500;

/** What an image is served from: plain data and shared memory. */
export interface ServedImage {
  readonly description: ImageDescription;
  readonly memory: ImageMemory;
  /** Null where the image is read-only. */
  readonly files: OpenFilesMemory | null;
  /** Of a `MountState`. */
  readonly state: SharedArrayBuffer;
  readonly facts: MountFacts;
}

/** The numbers by which the snapshots of an image are known, for when it is opened again as it is now. */
export function keptViews({ memory }: ServedImage): KeptViews | undefined {
  return memory.write === null ? undefined : new ImageState(memory.write.state).keptViews();
}

/** The owners' numbers are those of the workers, from 1, and the main thread's behind them. */
export function serveImage(
  description: ImageDescription,
  facts: MountFacts,
  memory: MemoryOptions,
): ServedImage {
  return {
    description,
    memory: allocateImageMemory(description, memory),
    files: description.writable ? allocateOpenFiles() : null,
    state: allocateMountState(),
    facts,
  };
}

/** The main thread's own way to an image, for flushing; null where it is read-only. */
export function flushedImage(
  { description, memory, state }: ServedImage,
  owner: number,
  log: FlushedImageOptions['log'],
): FlushedImage | null {
  const options = { patienceMs: FLUSH_PATIENCE_MS };
  if (!description.writable) return null;
  const { writer } = new AttachedImage(description, memory, owner, options);
  return new FlushedImage({ writer: writer!, state: new MountState(state, owner), log });
}

/** The operations on an image, in the thread of that number. `patienceMs`: as `OpenFiles` has it. */
export function operationsOf(served: ServedImage, owner: number, patienceMs?: number): Operations {
  const image = new AttachedImage(served.description, served.memory, owner);
  const { writer, disk } = image;
  if (writer === null) return new Operations(new Tree(image, served.facts));
  const files = new OpenFiles(served.files!, disk, owner, patienceMs);
  const tree = new Tree(image, served.facts, files.windows);
  const state = new MountState(served.state, owner);
  return new Operations(tree, new Changes({ tree, disk, writer, files, state }));
}

/** Frees what the dead thread `owner` held of an image. */
export function recoverServed({ memory, files, state }: ServedImage, owner: number): void {
  recoverOwner(memory, owner);
  if (files !== null) recoverOpenFiles(files, owner);
  new MountState(state, owner).recover(owner);
}
