/** `measure`: words to the sizes of an image that is not there yet. */
import type { JsonObject } from '../mount/json.js';
import { formatJson } from '../mount/json.js';
import {
  createOptionTable,
  isCreatable,
  type OptionValues,
  parseOptions,
} from '../image/create-options.js';
import { ImageError, invalid } from '../errors.js';
import { type Measure, measureSteps } from '../tools/measure.js';
import type { OpenDisk } from '../tools/open-disk.js';
import { advancing } from '../tools/progress.js';
import { OPTIONS } from './command-options.js';
import { commandProgress } from './command-progress.js';
import { openTold } from './open-told.js';
import { type Arguments, getopt } from './getopt.js';
import { imageSpec, keysOf, outputFormat } from './image-options.js';
import { optionPairs } from './option-lists.js';
import type { Outcome } from './outcome.js';
import { programName } from './program.js';
import { exactSizeWord } from './size-word.js';
import { snapshotChoice } from './snapshot-word.js';

export async function runMeasureCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS.measure);
  const keys = keysOf(args);
  const pairs = optionPairs(args.all('o'));
  const sizes = args.all('size').map((text) => exactSizeWord('image size', text));
  const choices = args.all('l').map(snapshotChoice);
  const output = outputFormat(args);
  const format = args.last('O') ?? 'raw';
  const source = await sourceOf(args, sizes.at(-1));
  const progress = commandProgress(args, true);
  try {
    const values = targetValues(format, pairs);
    const request = { format, values, source, snapshot: choices.at(-1), keys };
    const result = await advancing(measureSteps(request), progress);
    process.stdout.write(output === 'json' ? jsonMeasure(result) : humanMeasure(result));
    return { status: 0 };
  } finally {
    progress.finish();
    if (typeof source !== 'bigint') source.abandon();
  }
}

/** What `-o` says of the target; nothing where its format's options are not known here. */
function targetValues(format: string, pairs: ReturnType<typeof optionPairs>): OptionValues {
  if (isCreatable(format) && !['qcow2', 'raw'].includes(format)) return new Map();
  const table = createOptionTable(format);
  try {
    return parseOptions(pairs, table);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const said = `${programName()}: Invalid options for file format '${format}'`;
    const hint = [error.context.hint, said].filter(Boolean).join('\n');
    throw new ImageError('invalid', 'EINVAL', error.message, { ...error.context, hint }, error);
  }
}

/** The image that is to be stored, opened, or the size of a disk that holds nothing. */
async function sourceOf(args: Arguments, size: bigint | undefined): Promise<OpenDisk | bigint> {
  const [file, ...others] = args.operands;
  if (others.length > 0) throw invalid('At most one filename argument is allowed.');
  if (file === undefined) {
    if (args.has('image-opts') || args.has('f') || args.has('l')) {
      throw invalid('--image-opts, -f, and -l require a filename argument.');
    }
    if (size === undefined) throw invalid('Either --size N or one filename must be specified.');
    return size;
  }
  if (size !== undefined) throw invalid('--size N cannot be used together with a filename.');
  return openTold(imageSpec(file, args));
}

function humanMeasure({ required, fullyAllocated, bitmaps }: Measure): string {
  const lines = [`required size: ${required}`, `fully allocated size: ${fullyAllocated}`];
  if (bitmaps !== undefined) lines.push(`bitmaps size: ${bitmaps}`);
  return `${lines.join('\n')}\n`;
}

function jsonMeasure({ required, fullyAllocated, bitmaps }: Measure): string {
  const object: JsonObject = {
    ...(bitmaps !== undefined && { bitmaps }),
    required,
    'fully-allocated': fullyAllocated,
  };
  return `${formatJson(object)}\n`;
}
