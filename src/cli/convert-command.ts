/** `convert`: words to a disk that is copied into another image. */
import { invalid } from '../errors.js';
import type { ImageError } from '../errors.js';
import { withOption } from '../image/create-options.js';
import { type Bitmap, isUsable } from '../image/qcow2/bitmaps.js';
import type { ImageSpec } from '../image/spec.js';
import { type ConvertSource, convertDisks, sourceFiles, sourceSize } from '../tools/convert.js';
import { type ConvertTarget, openTarget } from '../tools/convert-target.js';
import { CopyFailure } from '../tools/copy-failure.js';
import { type Creation, planCreation } from '../tools/creation.js';
import type { OpenDisk } from '../tools/open-disk.js';
import { chosenSnapshot, type SnapshotChoice } from '../tools/snapshot-choice.js';
import { openTold } from './open-told.js';
import { type CommandProgress, commandProgress } from './command-progress.js';
import { type ConvertWords, convertWords } from './convert-words.js';
import { createHelp } from './create-command.js';
import { cacheOption, imageSpec, keysOf, sourceCacheOption } from './image-options.js';
import { ioProblem } from './io-problem.js';
import { asksForHelp } from './option-lists.js';
import type { Outcome } from './outcome.js';
import { makeTarget } from './make-target.js';
import { reportError, reportWarning } from './program.js';

export async function runConvertCommand(words: string[]): Promise<Outcome> {
  const asked = convertWords(words);
  const { args, sources, target, format } = asked;
  if (asksForHelp(asked.pairs)) {
    process.stdout.write(createHelp(format, target === '' ? undefined : target));
    return { status: 0 };
  }
  if (sources.length === 0) throw invalid('Must specify image file name');
  sourceCacheOption(args);
  const progress = commandProgress(args, args.has('q'));
  try {
    await convert(asked, progress);
    if (args.last('progress') === '' && !args.has('q')) {
      process.stdout.write('    (100.00/100%)\r');
    }
    return { status: 0 };
  } catch (error) {
    if (!(error instanceof CopyFailure)) throw error;
    reportError(failureText(error));
    return { status: 1 };
  } finally {
    progress.finish();
  }
}

async function convert(asked: ConvertWords, progress: CommandProgress): Promise<void> {
  const { args } = asked;
  const disks: OpenDisk[] = [];
  try {
    for (const word of asked.sources) {
      const write = sourceCacheOption(args);
      disks.push(await openTold(imageSpec(word, args), { write }));
    }
    const sources = disks.map((disk): ConvertSource => ({ disk, view: null }));
    if (asked.snapshot !== undefined) {
      sources[0] = { disk: disks[0]!, view: findSnapshot(disks, asked.snapshot) };
    }
    const size = sources.reduce((sum, source) => sum + sourceSize(source), 0);
    const target = await targetOf(asked, size, disks, progress);
    await convertDisks(sources, target, {
      compressed: args.has('c'),
      sparse: asked.sparse,
      overBacking: overBacking(asked),
      targetIsZero: args.has('target-is-zero'),
      salvage: args.has('salvage'),
      rate: asked.rate,
      threads: asked.threads,
      progress,
      bitmaps: copiedBitmaps(asked, disks),
      onProblem: (problem) => args.has('q') || reportWarning(problemText(problem)),
    });
  } finally {
    for (const disk of disks) disk.abandon();
  }
}

/** The view number of the snapshot that is asked for. */
function findSnapshot(disks: readonly OpenDisk[], choice: SnapshotChoice): number {
  if (choice.idOrName !== undefined && disks.length > 1) {
    throw invalid('No support for concatenating multiple snapshot');
  }
  return chosenSnapshot(disks[0]!, choice).view;
}

function overBacking({ args, pairs }: ConvertWords): boolean {
  return args.has('B') || pairs.some(([key]) => key === 'backing_file');
}

/** Makes or opens it. Errors are QEMU's, in its order. */
async function targetOf(
  asked: ConvertWords,
  size: number,
  sources: readonly OpenDisk[],
  progress: CommandProgress,
): Promise<ConvertTarget> {
  const { args } = asked;
  const creation = asked.creates ? creationOf(asked, size) : undefined;
  if (overBacking(asked) && sources.length > 1) {
    throw invalid(
      'Having a backing file for the target makes no sense when concatenating multiple input images',
    );
  }
  if (creation !== undefined) checkBackingFormat(creation);
  if (args.has('c') && creation !== undefined) checkCompression(creation);
  const { cache = 'unsafe' } = cacheOption(args);
  if (args.has('bitmaps')) {
    checkBitmaps(asked, sources);
    const isOld = creation?.values.get('compat')?.text === '0.10';
    if (asked.format !== 'qcow2' || isOld) throw refuseFormat(asked.format);
  }
  const others = sourceFiles(sources);
  if (creation !== undefined) {
    const problem = `error while converting ${asked.format}`;
    return await makeTarget(creation, { cache, problem, progress, others });
  }
  const target = await openTarget(targetSpec(asked), cache, others);
  try {
    if (args.has('c') && !holdsCompressed(target.disk.description.layers[0].format)) {
      throw invalid('Compression not supported for this file format');
    }
    const [top] = target.disk.description.layers;
    const holdsBitmaps = top.format === 'qcow2' && top.header.version >= 3;
    if (args.has('bitmaps') && !holdsBitmaps) throw refuseFormat(top.format);
    if (target.disk.size < size) throw invalid('output file is smaller than input file');
    if (overBacking(asked) && args.has('target-is-zero')) {
      throw invalid('Cannot use --target-is-zero when the destination image has a backing file');
    }
    return target;
  } catch (error) {
    target.abandon();
    throw error;
  }
}

/** What is to be made, with its size and its backing file. */
function creationOf({ args, target, format, pairs }: ConvertWords, size: number): Creation {
  const creation = planCreation(target, format, pairs, keysOf(args));
  const { table } = creation;
  let values = withOption(creation.values, table, 'size', String(size));
  for (const [option, name, what] of [
    ['B', 'backing_file', 'Backing file'],
    ['F', 'backing_fmt', 'Backing file format'],
  ] as const) {
    const text = args.last(option);
    if (text === undefined) continue;
    if (!table.some((known) => known.name === name)) {
      throw invalid(`${what} not supported for file format '${format}'`);
    }
    values = withOption(values, table, name, text);
  }
  return { ...creation, values };
}

function checkBackingFormat({ values }: Creation): void {
  if (!values.has('backing_file') || values.has('backing_fmt')) return;
  throw invalid('Use of backing file requires explicit backing format');
}

/** Formats whose clusters can be stored compressed. */
function holdsCompressed(format: string): boolean {
  return format === 'qcow2' || format === 'qcow';
}

function checkCompression({ format, values }: Creation): void {
  if (!holdsCompressed(format)) throw invalid('Compression not supported for this file format');
  const conflict = (what: string) =>
    invalid(`Compression and ${what} not supported at the same time`);
  if (values.get('encryption')?.flag === true || values.has('encrypt.format')) {
    throw conflict('encryption');
  }
  if (format === 'qcow2' && (values.get('preallocation')?.text ?? 'off') !== 'off')
    throw conflict('preallocation');
}

/** Those of the source that the target gets; none where they are not asked for. */
function copiedBitmaps({ args }: ConvertWords, [disk]: readonly OpenDisk[]): readonly Bitmap[] {
  const [top] = disk!.description.layers;
  if (!args.has('bitmaps') || top.format !== 'qcow2') return [];
  return top.bitmaps.filter(isUsable);
}

/** Throws where bitmaps are asked for and cannot be copied; tells of those that are skipped. */
function checkBitmaps({ args }: ConvertWords, disks: readonly OpenDisk[]): void {
  if (disks.length > 1) throw invalid('Copying bitmaps only possible with single source');
  const [top] = disks[0]!.description.layers;
  if (top.format !== 'qcow2' || top.header.version < 3) {
    throw invalid('Source lacks bitmap support');
  }
  for (const bitmap of top.bitmaps.toReversed()) {
    if (isUsable(bitmap)) continue;
    if (!args.has('skip-broken-bitmaps')) {
      throw invalid(
        `Cannot copy inconsistent bitmap '${bitmap.name}'`,
        "Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it",
      );
    }
    reportWarning(`Skipping inconsistent bitmap '${bitmap.name}'`);
  }
}

function refuseFormat(format: string): ImageError {
  return invalid(`Format driver '${format}' does not support bitmaps`);
}

function targetSpec({ args, target, format }: ConvertWords): ImageSpec {
  const imageOpts = args.has('target-image-opts');
  const stated = imageOpts ? (args.last('O') ?? null) : format;
  const { forceShare: _, ...spec } = imageSpec(target, args, { format: stated, imageOpts });
  return spec;
}

function failureText(failure: CopyFailure): string {
  const problem = ioProblem(failure.errno, failure.message);
  const { stage, offset } = failure;
  if (stage === 'status') return `error while reading block status at offset ${offset}: ${problem}`;
  return `error while ${stage === 'read' ? 'reading' : 'writing'} at byte ${offset}: ${problem}`;
}

function problemText({ stage, offset, errno, message }: CopyFailure): string {
  const what = stage === 'status' ? 'block status at ' : '';
  return `error while reading ${what}offset ${offset}: ${ioProblem(errno, message)}`;
}
