/** `dd`: a part of a disk as an image of its own, by blocks. */
import { ImageError, invalid } from '../errors.js';
import { withOption } from '../image/create-options.js';
import { convertDisks, sourceFiles } from '../tools/convert.js';
import { CopyFailure } from '../tools/copy-failure.js';
import { planCreation } from '../tools/creation.js';
import { OPTIONS } from './command-options.js';
import { openTold } from './open-told.js';
import { commandProgress } from './command-progress.js';
import { getopt } from './getopt.js';
import { imageSpec } from './image-options.js';
import { ioProblem } from './io-problem.js';
import { makeTarget } from './make-target.js';
import type { Outcome } from './outcome.js';
import { reportError } from './program.js';
import { sizeWord } from './size-word.js';

const MOST_BLOCK = 2 ** 31 - 1;
const DEFAULT_BLOCK = 512;
const THREADS = 8;

interface Operands {
  readonly input: string | undefined;
  readonly output: string | undefined;
  /** Bytes. */
  readonly block: number;
  /** Blocks; undefined for all. */
  readonly count: number | undefined;
  readonly skip: number;
}

export async function runDdCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS.dd);
  const asked = ddOperands(args.operands);
  const { input, output } = asked;
  if (input === undefined || output === undefined) {
    throw invalid('Must specify both input and output files');
  }
  const disk = await openTold(imageSpec(input, args));
  const progress = commandProgress(args);
  try {
    const part = partOf(asked, disk.size);
    const creation = planned(output, args.last('O') ?? 'raw');
    if (part === null) reportError(`${input}: cannot skip to specified offset`);
    const { offset, size } = part ?? { offset: 0, size: 0 };
    const values = withOption(creation.values, creation.table, 'size', String(size));
    const target = await makeTarget(
      { ...creation, values },
      {
        cache: 'writeback',
        problem: 'error while creating output image',
        progress,
        others: sourceFiles([disk]),
      },
    );
    await convertDisks([{ disk, view: null, part: { offset, size } }], target, {
      bitmaps: [],
      compressed: false,
      // All of it is written, as dd does.
      sparse: 0,
      overBacking: false,
      targetIsZero: false,
      salvage: false,
      rate: 0,
      threads: THREADS,
      progress,
      onProblem: () => {},
    });
    return { status: 0 };
  } catch (error) {
    if (!(error instanceof CopyFailure)) throw error;
    const what = error.stage === 'write' ? 'writing to output' : 'reading from input';
    reportError(`error while ${what} image file: ${ioProblem(error.errno, error.message)}`);
    return { status: 1 };
  } finally {
    progress.finish();
    disk.abandon();
  }
}

function planned(output: string, format: string) {
  try {
    return planCreation(output, format, []);
  } catch (error) {
    const unknown = `Unknown file format '${format}'`;
    if (error instanceof ImageError && error.message === unknown) {
      throw invalid('Unknown file format');
    }
    throw error;
  }
}

/** `name=value`; the last of a name counts. */
function ddOperands(words: readonly string[]): Operands {
  let operands: Operands = {
    input: undefined,
    output: undefined,
    block: DEFAULT_BLOCK,
    count: undefined,
    skip: 0,
  };
  for (const word of words) {
    const [name, value] = splitWord(word);
    const change = value === undefined ? undefined : operandOf(name, value);
    if (change === undefined) throw invalid(`unrecognized operand ${name}`);
    operands = { ...operands, ...change };
  }
  return operands;
}

function splitWord(word: string): [name: string, value: string | undefined] {
  const at = word.indexOf('=');
  return at < 0 ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)];
}

function operandOf(name: string, value: string): Partial<Operands> | undefined {
  switch (name) {
    case 'if':
      return { input: value };
    case 'of':
      return { output: value };
    case 'bs':
      return { block: blockSize(value) };
    case 'count':
      return { count: sizeWord('count', value) };
    case 'skip':
      return { skip: sizeWord('skip', value) };
    default:
      return undefined;
  }
}

function blockSize(text: string): number {
  const size = sizeWord('bs', text);
  if (size >= 1 && size <= MOST_BLOCK) return size;
  throw invalid(`Invalid bs specified. Must be between 1 and ${MOST_BLOCK}.`);
}

/**
 * What is copied. As QEMU counts: `count` blocks from the disk's start, less those that are skipped. Null
 * where more is skipped than there is.
 */
function partOf({ block, count, skip }: Operands, size: number) {
  const end = count === undefined ? size : Math.min(size, count * block);
  const offset = skip * block;
  return offset > end ? null : { offset, size: end - offset };
}
