/** `qcow2fs resize`, as `qemu-img resize`. */
import { ImageError, invalid } from '../errors.js';
import { parseExactSize, SIZE_HINT } from '../codec/size-text.js';
import { type Preallocation, preallocationNamed } from '../image/writer.js';
import { closeAfter, type OpenDisk } from '../tools/open-disk.js';
import { advancing, type Progress } from '../tools/progress.js';
import { type NewSize, newSize, resizeSteps } from '../tools/resize.js';
import { OPTIONS } from './command-options.js';
import { commandProgress } from './command-progress.js';
import { type Arguments, getopt } from './getopt.js';
import { imageSpec } from './image-options.js';
import { openWritable } from './open-writable.js';
import type { Outcome } from './outcome.js';
import { reportError, reportWarning, UsageError } from './program.js';

const SHRINK_WARNING =
  "Shrinking an image will delete all data beyond the shrunken image's end. " +
  'Before performing such an operation, make sure there is no important data there.';

export async function runResizeCommand(words: string[]): Promise<Outcome> {
  if (words.length < 2) throw new UsageError('Not enough arguments');
  // The size may begin with a minus: it is no option.
  const args = getopt(words.slice(0, -1), OPTIONS.resize);
  const preallocation = preallocationOf(args);
  const [filename] = args.operands;
  if (filename === undefined || args.operands.length !== 1) {
    throw new UsageError('Expecting image file name and size');
  }
  const wanted = sizeOf(words.at(-1)!);
  const disk = await openWritable(imageSpec(filename, args));
  const allowed = { preallocation, shrink: args.has('shrink') };
  const progress = commandProgress(args, args.has('q'));
  let resized: boolean;
  try {
    resized = await closeAfter(disk, () => resize(disk, wanted, allowed, progress));
    if (resized) progress.complete();
  } finally {
    progress.finish();
  }
  if (resized && !args.has('q')) process.stdout.write('Image resized.\n');
  return { status: resized ? 0 : 1 };
}

/** False where the disk would lose what nobody allowed it to lose. */
async function resize(
  disk: OpenDisk,
  wanted: NewSize,
  { preallocation, shrink }: { preallocation: Preallocation; shrink: boolean },
  progress: Progress,
): Promise<boolean> {
  const size = newSize(disk.size, wanted);
  if (size < disk.size && preallocation === 'off' && !shrink) {
    reportError('Use the --shrink option to perform a shrink operation.');
    reportWarning(SHRINK_WARNING);
    return false;
  }
  await advancing(resizeSteps(disk, size, preallocation), progress);
  return true;
}

function preallocationOf(args: Arguments): Preallocation {
  const text = args.last('preallocation') ?? 'off';
  const mode = preallocationNamed(text);
  if (mode !== undefined) return mode;
  throw invalid(`Invalid preallocation mode '${text}'`);
}

function sizeOf(word: string): NewSize {
  const signed = word.startsWith('+') || word.startsWith('-');
  const sign = !signed ? 0 : word.startsWith('-') ? -1 : 1;
  const text = signed ? word.slice(1) : word;
  const bytes = parseExactSize(text);
  if (bytes === 'range') {
    const message = `Value '${text}' is out of range for parameter 'size'`;
    throw new ImageError('invalid', 'ERANGE', message);
  }
  if (bytes === 'invalid') {
    const message = "Parameter 'size' expects a non-negative number below 2^64";
    throw invalid(message, SIZE_HINT);
  }
  return { bytes, sign };
}
