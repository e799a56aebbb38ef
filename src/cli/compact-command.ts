/** `qcow2fs compact`: what an image holds moves to its beginning, and its file is cut. */
import { fstatSync } from 'node:fs';
import { ImageError } from '../errors.js';
import type { ImageDescription } from '../image/description.js';
import type { CompactResult } from '../image/qcow2/compact.js';
import { compactImage } from '../tools/compact.js';
import { advancing } from '../tools/progress.js';
import { OPTIONS } from './command-options.js';
import { commandProgress } from './command-progress.js';
import { getopt } from './getopt.js';
import { formatSize } from './human.js';
import { cacheOption, imageSpec, outputFormat } from './image-options.js';
import type { Outcome } from './outcome.js';
import { warnOfProbing } from './probing.js';
import { UsageError } from './program.js';

export async function runCompactCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS.compact);
  const output = outputFormat(args);
  const [filename] = args.operands;
  if (filename === undefined || args.operands.length !== 1) {
    throw new UsageError('Expecting one image file name');
  }
  const spec = imageSpec(filename, args);
  const dryRun = args.has('dry-run');
  if (spec.readOnly === true && !dryRun) {
    const message = `Could not open '${spec.filename}': Block node is read-only`;
    throw new ImageError('policy', 'EACCES', message);
  }
  const write = cacheOption(args);
  const progress = commandProgress(args, args.has('q'));
  let result: CompactResult;
  let isDevice = false;
  try {
    const opened = (description: ImageDescription) => {
      isDevice = fstatSync(description.layers[0].file.fd).isBlockDevice();
      warnOfProbing({ description });
    };
    result = await advancing(compactImage(spec, { dryRun, write, opened }), progress);
    progress.complete();
  } finally {
    progress.finish();
  }
  if (!args.has('q')) {
    const humanText = isDevice ? textOfDevice : textOfFile;
    process.stdout.write(output === 'json' ? jsonText(result) : humanText(result, dryRun));
  }
  return { status: 0 };
}

function jsonText({ before, after, moved }: CompactResult): string {
  return `${JSON.stringify({ before, after, saved: before - after, moved }, null, 4)}\n`;
}

function textOfFile({ before, after }: CompactResult, dryRun: boolean): string {
  if (before === after) return 'Image is compact.\n';
  const sizes = `${formatSize(before)} to ${formatSize(after)}`;
  const saved = formatSize(before - after);
  return dryRun
    ? `Image would be cut from ${sizes}: ${saved} less.\n`
    : `Image cut from ${sizes}: ${saved} less.\n`;
}

function textOfDevice({ before, after }: CompactResult, dryRun: boolean): string {
  if (before === after) return 'Image is compact.\n';
  const ends = `end at ${formatSize(after)} of the device, not at ${formatSize(before)}`;
  return dryRun ? `Image would ${ends}.\n` : `Image moved to ${ends}. The device keeps its size.\n`;
}
