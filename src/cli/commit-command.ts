/** `qcow2fs commit`, as `qemu-img commit`. */
import { parseSize } from '../codec/size-text.js';
import { commitDisk } from '../tools/commit.js';
import { closeAfter } from '../tools/open-disk.js';
import { commandProgress } from './command-progress.js';
import { getopt } from './getopt.js';
import {
  CACHE,
  cacheOption,
  FORMAT,
  IMAGE_OPTS,
  imageSpec,
  OBJECT,
  PROGRESS,
  QUIET,
} from './image-options.js';
import { openWritable } from './open-writable.js';
import type { Outcome } from './outcome.js';
import { reportError, UsageError } from './program.js';

const OPTIONS = [
  ...[OBJECT, IMAGE_OPTS, QUIET, FORMAT, CACHE, PROGRESS],
  ...[{ short: 'b', value: true as const }, { short: 'r', value: true as const }, { short: 'd' }],
];
const MOST_PER_SECOND = 2n ** 63n - 1n;

export async function runCommitCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS);
  const bytesPerSecond = parseSize(args.last('r') ?? '0');
  if (bytesPerSecond === 'invalid') {
    reportError('Invalid rate limit specified. You may use k, M, G, T, P or E suffixes for');
    reportError('kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.');
    return { status: 1 };
  }
  if (bytesPerSecond === 'range' || bytesPerSecond > MOST_PER_SECOND) {
    reportError(`Invalid rate limit specified. Must be between 0 and ${MOST_PER_SECOND}.`);
    return { status: 1 };
  }
  const [filename] = args.operands;
  if (filename === undefined || args.operands.length !== 1) {
    throw new UsageError('Expecting one image file name');
  }
  const write = cacheOption(args);
  const spec = imageSpec(filename, args);
  const base = args.last('b');
  // As QEMU: what lies between the image and a base that is named may be needed still.
  const keep = args.has('d') || base !== undefined;
  const quiet = args.has('q');
  const top = await openWritable(spec, write);
  await closeAfter(top, async () => {
    const progress = commandProgress(args, quiet);
    try {
      await commitDisk(top, { spec, base, keep, bytesPerSecond, write }, progress);
    } finally {
      progress.finish();
    }
  });
  if (!quiet) process.stdout.write('Image committed.\n');
  return { status: 0 };
}
