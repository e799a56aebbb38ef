/** `create`: words to an image that is made. */
import { ImageError } from '../errors.js';
import { describeOptions, formatOptionTable, optionsHelp } from '../image/create-options.js';
import { createImage } from '../tools/create.js';
import { completeCreation, type Creation, planCreation } from '../tools/creation.js';
import { OPTIONS } from './command-options.js';
import { commandProgress } from './command-progress.js';
import { type Arguments, getopt } from './getopt.js';
import { keysOf } from './image-options.js';
import { asksForHelp, optionPairs } from './option-lists.js';
import type { Outcome } from './outcome.js';
import { UsageError } from './program.js';
import { exactSizeWord } from './size-word.js';

export async function runCreateCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS.create);
  const format = args.last('f') ?? 'raw';
  const keys = keysOf(args);
  const pairs = optionPairs(args.all('o'));
  const [filename, size, extra] = args.operands;
  if (asksForHelp(pairs)) {
    process.stdout.write(createHelp(format, filename));
    return { status: 0 };
  }
  if (filename === undefined) throw new UsageError('Expecting image file name');
  const bytes = size === undefined ? undefined : exactSizeWord('image size', size);
  if (extra !== undefined) throw new UsageError(`Unexpected argument: ${extra}`);
  await naming(filename, () => create(planCreation(filename, format, pairs, keys), bytes, args));
  return { status: 0 };
}

async function create(planned: Creation, size: bigint | undefined, args: Arguments): Promise<void> {
  const { filename, format } = planned;
  const creation = completeCreation(planned, {
    size,
    backingFile: args.last('b'),
    backingFormat: args.last('F'),
    unsafe: args.has('u'),
  });
  if (!args.has('q')) {
    const facts = describeOptions(creation.values, creation.table);
    process.stdout.write(`Formatting '${filename}', fmt=${format} ${facts}\n`);
  }
  const progress = commandProgress(args, args.has('q'));
  try {
    await createImage(creation, progress);
    await progress.advance(1);
  } finally {
    progress.finish();
  }
}

/** What the format takes; with a file, what can be said of that, too. */
export function createHelp(format: string, filename: string | undefined): string {
  if (filename !== undefined) {
    return `Supported options:\n${optionsHelp(planCreation(filename, format, []).table)}`;
  }
  return (
    `Supported ${format} options:\n${optionsHelp(formatOptionTable(format))}\n` +
    'The protocol level may support further options.\n' +
    'Specify the target filename to include those options.\n'
  );
}

/** Errors begin with the image's name. */
async function naming(filename: string, body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const message = `${filename}: ${error.message}`;
    throw new ImageError(error.kind, error.code, message, error.context, error);
  }
}
