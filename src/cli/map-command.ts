/** `map`: words to the map of a disk. */
import { setImmediate } from 'node:timers/promises';
import { type BlockStatus, blockStatus } from '../tools/block-status.js';
import { OPTIONS } from './command-options.js';
import { openTold } from './open-told.js';
import { sayingWhere } from '../tools/saying-where.js';
import { getopt } from './getopt.js';
import { imageSpec, outputFormat } from './image-options.js';
import { humanMap, jsonMap } from './map.js';
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
  const opened = await openTold(imageSpec(file, args, { format: args.last('format') }));
  try {
    const runs = explained(blockStatus(opened, start, Math.min(opened.size, start + most)));
    await print(output === 'json' ? jsonMap(runs, start) : humanMap(runs));
    return { status: 0 };
  } finally {
    opened.abandon();
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
