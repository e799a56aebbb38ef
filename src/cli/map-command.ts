/** `map`: words to the map of a disk. */
import { setImmediate } from 'node:timers/promises';
import { parseSize } from '../codec/size-text.js';
import {
  describeError,
  type ErrnoName,
  errnoName,
  errnoOf,
  ImageError,
  isExpected,
} from '../errors.js';
import { strerror } from '../sys/libc.js';
import { type BlockStatus, blockStatus } from '../tools/block-status.js';
import { openDisk } from '../tools/open-disk.js';
import { getopt, type Option } from './getopt.js';
import {
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  imageSpec,
  OBJECT,
  OUTPUT,
  outputFormat,
} from './image-options.js';
import { humanMap, jsonMap } from './map.js';
import { checkObjects } from './objects.js';
import type { Outcome } from './outcome.js';
import { reportError, UsageError } from './program.js';

const START: Option = { long: 'start-offset', short: 's', value: true };
const MOST: Option = { long: 'max-length', short: 'l', value: true };
const OPTIONS = [
  { ...FORMAT, long: 'format' },
  IMAGE_OPTS,
  FORCE_SHARE,
  OBJECT,
  OUTPUT,
  START,
  MOST,
];

/** So many characters are written at once. */
const PIECE_SIZE = 1 << 16;

export async function runMapCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS);
  const start = bytesOf(args.last('start-offset') ?? '0', 'start offset');
  const most = bytesOf(args.last('max-length') ?? String(MOST_BYTES), 'max length');
  if (start === undefined || most === undefined) return { status: 1 };
  checkObjects(args.all('object'));
  const [file, ...others] = args.operands;
  if (file === undefined || others.length > 0) {
    throw new UsageError('Expecting one image file name');
  }
  const output = outputFormat(args);
  const opened = await openDisk(imageSpec(file, args, { format: args.last('format') }));
  try {
    const runs = explained(blockStatus(opened, start, Math.min(opened.size, start + most)));
    await print(output === 'json' ? jsonMap(runs, start) : humanMap(runs));
    return { status: 0 };
  } finally {
    opened.abandon();
  }
}

/** The largest offset that QEMU knows. */
const MOST_BYTES = 2n ** 63n - 1n;

/** Undefined where the text is none, which is told. */
function bytesOf(text: string, name: string): number | undefined {
  const bytes = parseSize(text);
  if (bytes === 'invalid') {
    reportError(`Invalid ${name} specified. You may use k, M, G, T, P or E suffixes for`);
    reportError('kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.');
    return undefined;
  }
  if (text !== String(MOST_BYTES) && (bytes === 'range' || bytes > MOST_BYTES)) {
    reportError(`Invalid ${name} specified. Must be between 0 and ${MOST_BYTES}.`);
    return undefined;
  }
  return Number(bytes);
}

/** Tables that cannot be read, in QEMU's words. */
function* explained(runs: Iterable<BlockStatus>): Generator<BlockStatus> {
  try {
    yield* runs;
  } catch (error) {
    if (!isExpected(error)) throw error;
    const errno = errnoOf(error);
    const message = `Could not read file metadata: ${strerror(errno)}`;
    const limit = describeError(error);
    throw new ImageError('corrupt', errnoName(errno) as ErrnoName, message, { limit }, error);
  }
}

/**
 * Where the text breaks off with an error, what came before it is printed. Between its pieces others
 * have their turn: where nobody reads them any more, the process ends.
 */
async function print(text: Iterable<string>): Promise<void> {
  let piece = '';
  try {
    for (const part of text) {
      piece += part;
      if (piece.length < PIECE_SIZE) continue;
      process.stdout.write(piece);
      piece = '';
      await setImmediate();
    }
  } finally {
    process.stdout.write(piece);
  }
}
