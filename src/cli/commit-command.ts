/** `qcow2fs commit`, as `qemu-img commit`. */
import { commitDisk } from '../tools/commit.js';
import { closeAfter } from '../tools/open-disk.js';
import { OPTIONS } from './command-options.js';
import { commandProgress } from './command-progress.js';
import { getopt } from './getopt.js';
import { cacheOption, imageSpec } from './image-options.js';
import { openWritable } from './open-writable.js';
import type { Outcome } from './outcome.js';
import { UsageError } from './program.js';
import { sizeWord } from './size-word.js';

export async function runCommitCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS.commit);
  const bytesPerSecond = sizeWord('rate limit', args.last('r') ?? '0');
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
