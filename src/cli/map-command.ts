/** `map`: words to the map of a disk. */
import { statSync, writeFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { ImageError } from '../errors.js';
import { filesOf, type ImageDescription } from '../image/description.js';
import { fileIdentity, identityOf } from '../image/file-identity.js';
import { type BlockStatus, blockStatus } from '../tools/block-status.js';
import { type DiskLayout, type LayoutOptions, layoutSteps } from '../tools/disk-layout.js';
import type { OpenDisk } from '../tools/open-disk.js';
import { advancing, Cancelled } from '../tools/progress.js';
import { OPTIONS } from './command-options.js';
import { commandProgress } from './command-progress.js';
import { openTold } from './open-told.js';
import { sayingWhere } from '../tools/saying-where.js';
import { type Arguments, getopt } from './getopt.js';
import { imageSpec, outputFormat } from './image-options.js';
import { humanMap, jsonMap } from './map.js';
import { mapPage, PAGE_CELLS } from './map-html.js';
import { drawing, pictureCells } from './map-draw.js';
import { takeObjects } from './objects.js';
import type { Outcome } from './outcome.js';
import { UsageError } from './program.js';
import { sizeWord } from './size-word.js';

/** So many characters are written at once. */
const PIECE_SIZE = 1 << 16;

export async function runMapCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS.map);
  const start = sizeWord('start offset', args.last('start-offset') ?? '0');
  const length = args.last('max-length');
  const most = length === undefined ? Number.POSITIVE_INFINITY : sizeWord('max length', length);
  takeObjects(args.all('object'));
  const [file, ...others] = args.operands;
  if (file === undefined || others.length > 0) {
    throw new UsageError('Expecting one image file name');
  }
  const output = outputFormat(args);
  const page = args.last('html');
  if ([args.has('draw'), args.has('output'), page !== undefined].filter(Boolean).length > 1) {
    throw new UsageError('--draw, --html and --output exclude each other');
  }
  const opened = await openTold(imageSpec(file, args, { format: args.last('format') }));
  const end = Math.max(start, Math.min(opened.size, start + most));
  try {
    if (page !== undefined) {
      const layout = await layoutOf(opened, { start, end, most: PAGE_CELLS }, args);
      const snapshots = opened.image.snapshots().length;
      writePage(page, mapPage(layout, opened.description, snapshots), opened.description);
      return { status: 0 };
    }
    if (args.has('draw')) {
      const layout = await layoutOf(opened, { start, end, most: pictureCells() }, args);
      await print(drawing(layout, opened.description));
      return { status: 0 };
    }
    const runs = explained(blockStatus(opened, start, end));
    await print(output === 'json' ? jsonMap(runs, start) : humanMap(runs));
    return { status: 0 };
  } finally {
    opened.abandon();
  }
}

/** Never over a file of the image. `-` is standard output. */
function writePage(path: string, text: string, { layers }: ImageDescription): void {
  if (path === '-') {
    process.stdout.write(text);
    return;
  }
  const there = statSync(path, { throwIfNoEntry: false });
  const own = layers.flatMap(filesOf).map(({ fd }) => fileIdentity(fd));
  if (there !== undefined && own.includes(identityOf(there))) {
    const message = `'${path}' is a file of the image: no page is written over it`;
    throw new ImageError('policy', 'EINVAL', message);
  }
  writeFileSync(path, text);
}

/** What signals end. */
async function layoutOf(
  opened: OpenDisk,
  options: LayoutOptions,
  args: Arguments,
): Promise<DiskLayout> {
  const progress = commandProgress(args);
  try {
    return await advancing(layoutSteps(opened, options), progress);
  } catch (error) {
    throw error instanceof Cancelled ? error : sayingWhere('Could not read file metadata', error);
  } finally {
    progress.finish();
  }
}

/** Tables that cannot be read, in QEMU's words. */
function* explained(runs: Iterable<BlockStatus>): Generator<BlockStatus> {
  try {
    yield* runs;
  } catch (error) {
    throw sayingWhere('Could not read file metadata', error);
  }
}

/**
 * Where the text breaks off with an error, what came before it is printed. Where nobody reads it any more,
 * it ends: between its pieces that is heard.
 */
async function print(text: Iterable<string>): Promise<void> {
  let piece = '';
  let isRead = true;
  const unread = () => {
    isRead = false;
  };
  process.stdout.once('error', unread);
  try {
    for (const part of text) {
      piece += part;
      if (piece.length < PIECE_SIZE) continue;
      process.stdout.write(piece);
      piece = '';
      await setImmediate();
      if (!isRead) return;
    }
  } finally {
    process.stdout.write(piece);
    process.stdout.off('error', unread);
  }
}
