/** `compare`: words to a comparison of two disks, told as qemu-img tells it. */
import { isExpected } from '../errors.js';
import { CompareError, compareDisks, type Comparison } from '../tools/compare.js';
import type { OpenDisk } from '../tools/open-disk.js';
import { OPTIONS } from './command-options.js';
import { openTold } from './open-told.js';
import { commandProgress } from './command-progress.js';
import { type Arguments, getopt } from './getopt.js';
import { imageSpec, sourceCacheOption } from './image-options.js';
import { ioProblemOf } from './io-problem.js';
import type { Outcome } from './outcome.js';
import { problemText, reportError, UsageError } from './program.js';

/** Progress is told in steps of at least so much. */
const LEAST_STEP = 0.02;

/** Exit statuses: 0 and 1 for what is found, and for errors: */
const STATUS = { OPEN: 2, STATUS: 3, READ: 4 } as const;

export async function runCompareCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS.compare);
  const [first, second, ...more] = args.operands;
  if (first === undefined || second === undefined || more.length > 0) {
    throw new UsageError('Expecting two image file names');
  }
  const disks: OpenDisk[] = [];
  let compared = false;
  try {
    const write = sourceCacheOption(args);
    const formats = [{}, { format: args.last('F') ?? null }];
    const specs = [first, second].map((word, n) => imageSpec(word, args, formats[n]));
    for (const spec of specs) disks.push(await openTold(spec, { write }));
    compared = true;
    return { status: await compare(disks[0]!, disks[1]!, args) };
  } catch (error) {
    if (!isExpected(error)) throw error;
    reportError(problemText(error));
    return { status: STATUS.OPEN };
  } finally {
    if (!compared && showsBar(args)) process.stdout.write('\n');
    for (const disk of disks) disk.abandon();
  }
}

function showsBar(args: Arguments): boolean {
  return args.last('progress') === '' && !args.has('q');
}

async function compare(first: OpenDisk, second: OpenDisk, args: Arguments): Promise<number> {
  const quiet = args.has('q');
  // As QEMU, where the output is a pipe: an error comes before it. With a bar all comes in its turn.
  const held: string[] = [];
  const say = (text: string) => {
    if (quiet) return;
    if (showsBar(args)) process.stdout.write(`${text}\n`);
    else held.push(`${text}\n`);
  };
  const progress = commandProgress(args, quiet, LEAST_STEP);
  try {
    const result = await compareDisks(first, second, {
      strict: args.has('s'),
      onSizesDiffer: () => say('Warning: Image size mismatch!'),
      progress,
    });
    say(resultText(result));
    return result.kind === 'same' ? 0 : 1;
  } catch (error) {
    if (!(error instanceof CompareError)) throw error;
    const name = args.operands[error.disk === first ? 0 : 1]!;
    if (error.kind === 'status') {
      reportError(`Sector allocation test failed for ${name}`);
      return STATUS.STATUS;
    }
    const problem = ioProblemOf(error.cause);
    reportError(`Error while reading offset ${error.offset} of ${name}: ${problem}`);
    return STATUS.READ;
  } finally {
    progress.finish();
    process.stdout.write(held.join(''));
  }
}

function resultText(result: Comparison): string {
  switch (result.kind) {
    case 'same':
      return 'Images are identical.';
    case 'size':
      return 'Strict mode: Image size mismatch!';
    case 'status':
      return `Strict mode: Offset ${result.offset} block status mismatch!`;
    case 'content':
      return `Content mismatch at offset ${result.offset}!`;
  }
}
