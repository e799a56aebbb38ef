/** Editing the persistent bitmaps of a closed image, and copying them into another one. */
import { ImageError, isExpected } from '../errors.js';
import type { Qcow2Description } from '../image/description.js';
import { storageOf } from '../image/file-storage.js';
import {
  type BitmapDraft,
  type BitmapEditor,
  refuseUnusable,
} from '../image/qcow2/bitmap-editor.js';
import { BITMAP_FLAG, type Bitmap } from '../image/qcow2/bitmaps.js';
import { type DirtySource, StoredBitmap } from '../image/qcow2/stored-bitmap.js';
import { Qcow2Writer } from '../image/qcow2/writer.js';
import type { ImageWriter } from '../image/writer.js';
import type { OpenDisk } from './open-disk.js';

/** What is done to a bitmap. `granularity`: bytes. `merge`: the name of another one. */
export type BitmapAction =
  | { readonly what: 'add'; readonly granularity: number | undefined }
  | { readonly what: 'merge'; readonly from: string }
  | { readonly what: 'remove' | 'clear' | 'enable' | 'disable' };

/** An action that cannot be done: the others before it are. */
export class ActionFailed extends Error {
  readonly action: BitmapAction['what'];
  override readonly cause: Error;

  constructor(action: BitmapAction['what'], cause: Error) {
    super(cause.message);
    this.action = action;
    this.cause = cause;
  }
}

/**
 * Does that to the bitmap of a disk that is open for writing, in order. `source`: where bitmaps that are
 * merged come from, if not from the image itself. Throws an ActionFailed in QEMU's words.
 */
export function editBitmap(
  disk: OpenDisk,
  name: string,
  actions: readonly BitmapAction[],
  source: OpenDisk | null,
): void {
  const editor = editorOf(disk.writer);
  try {
    for (const action of actions) {
      try {
        act(editor, disk, name, action, source);
      } catch (error) {
        if (!isExpected(error)) throw error;
        throw new ActionFailed(action.what, error);
      }
    }
  } finally {
    editor?.store();
  }
}

function act(
  editor: BitmapEditor | null,
  disk: OpenDisk,
  name: string,
  action: BitmapAction,
  source: OpenDisk | null,
): void {
  const { what } = action;
  if (editor === null) refuseFormat(disk, name, what);
  else if (what === 'add') editor.add(name, action.granularity);
  else if (what === 'remove') editor.remove(editor.find(name, 'any'));
  else if (what === 'clear') editor.clear(editor.find(name));
  else if (what === 'merge') merge(editor, name, action.from, source);
  else editor.enable(editor.find(name), what === 'enable');
}

/** As QEMU: in other formats there are none, and none can be. */
function refuseFormat(disk: OpenDisk, name: string, what: BitmapAction['what']): never {
  const { path } = disk.description.layers[0].file;
  if (what === 'add') {
    const message = `Can't store persistent bitmaps to ${path}: Operation not supported`;
    throw new ImageError('unsupported', 'ENOTSUP', message);
  }
  throw new ImageError('missing', 'ENOENT', `Dirty bitmap '${name}' not found`);
}

function merge(editor: BitmapEditor, name: string, from: string, source: OpenDisk | null): void {
  // As QEMU: both are found before it is asked whether they can be used.
  editor.find(name, 'any');
  if (source === null) {
    editor.find(from, 'any');
    const target = editor.find(name);
    const other = editor.find(from);
    if (other !== target) editor.merge(target, editor.sourcesOf(other));
    return;
  }
  const stored = storedBitmap(source, from);
  const target = editor.find(name);
  refuseUnusable(stored);
  const { size } = source;
  if (size !== editor.size) {
    throw new ImageError(
      'invalid',
      'EINVAL',
      `Bitmaps are of different sizes (destination size is ${editor.size}, source size is ` +
        `${size}) and can't be merged`,
    );
  }
  editor.merge(target, [storedBits(source, stored)]);
}

/** What the image has under that name, be it of use or not. */
function storedBitmap({ description }: OpenDisk, name: string): Bitmap {
  const [top] = description.layers;
  const bitmaps = top.format === 'qcow2' ? top.bitmaps : [];
  const found = bitmaps.find((bitmap) => bitmap.name === name);
  if (found !== undefined) return found;
  throw new ImageError('missing', 'ENOENT', `Dirty bitmap '${name}' not found`);
}

function storedBits({ description, size }: OpenDisk, bitmap: Bitmap): DirtySource {
  const { header, file } = description.layers[0] as Qcow2Description;
  return new StoredBitmap(storageOf(file), bitmap, header.geometry.clusterSize, size);
}

/**
 * Gives an image copies of bitmaps that a disk has; its own come first. Throws an ImageError in QEMU's
 * words; what was copied until then is stored.
 */
export function copyBitmaps(
  source: OpenDisk,
  bitmaps: readonly Bitmap[],
  editor: BitmapEditor,
): void {
  const before = editor.drafts.length;
  try {
    // The last one first, as QEMU: the first that fails is the one that is told of.
    for (const bitmap of bitmaps.toReversed()) {
      copyBitmap(source, bitmap, editor);
      editor.drafts.splice(before, 0, editor.drafts.pop()!);
    }
  } finally {
    editor.store();
  }
}

function copyBitmap(source: OpenDisk, bitmap: Bitmap, editor: BitmapEditor): void {
  const { name, granularity, flags } = bitmap;
  let what = 'create';
  let draft: BitmapDraft | undefined;
  try {
    draft = editor.add(name, granularity, (flags & BITMAP_FLAG.AUTO) !== 0);
    what = 'populate';
    merge(editor, name, name, source);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    if (draft !== undefined) editor.remove(draft);
    const { kind, code, context, message } = error;
    throw new ImageError(kind, code, `Failed to ${what} bitmap ${name}: ${message}`, context);
  }
}

/** Null where the format has no bitmaps. */
function editorOf(writer: ImageWriter): BitmapEditor | null {
  return writer instanceof Qcow2Writer ? writer.bitmaps() : null;
}
