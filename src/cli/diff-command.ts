/** `diff`: words to the extents in which two disks differ. */
import type { MappedDisk } from '../tools/block-status.js';
import { type Difference, type DiffOptions, diffDisks } from '../tools/diff.js';
import type { OpenDisk } from '../tools/open-disk.js';
import { chosenSnapshot } from '../tools/snapshot-choice.js';
import { OPTIONS } from './command-options.js';
import { commandProgress } from './command-progress.js';
import { type Arguments, getopt } from './getopt.js';
import { padRight } from './human.js';
import { imageSpec, outputFormat } from './image-options.js';
import { openTold } from './open-told.js';
import type { Outcome } from './outcome.js';
import { UsageError } from './program.js';
import { snapshotChoice } from './snapshot-word.js';

const COLUMN = 16;

export async function runDiffCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS.diff);
  const output = outputFormat(args);
  const [snapshots, images] = [args.all('l'), args.operands];
  const fits = snapshots.length === 0 ? images.length === 2 : images.length === 1;
  if (!fits || snapshots.length > 2) {
    throw new UsageError('Expecting two images, or -l SNAPSHOT once or twice and one image');
  }
  const opened: OpenDisk[] = [];
  // Tables are not encrypted.
  const policy = { allowEncrypted: args.has('metadata') };
  try {
    for (const [n, word] of images.entries()) {
      const format = n === 0 ? {} : { format: args.last('F') ?? null };
      opened.push(await openTold(imageSpec(word, args, format), { policy }));
    }
    const [first, second] = disksOf(opened, snapshots);
    await tell(first, second, args, output === 'json' ? jsonText : humanText);
    return { status: 0 };
  } finally {
    for (const disk of opened) disk.abandon();
  }
}

/** The older one first. */
function disksOf(
  [image, second]: readonly OpenDisk[],
  [older, newer]: readonly string[],
): [MappedDisk, MappedDisk] {
  if (older === undefined) return [image!, second!];
  const snapshot = (word: string): MappedDisk => {
    const { view } = chosenSnapshot(image!, snapshotChoice(word));
    return { description: image!.description, disk: image!.image.snapshotDisk(view) };
  };
  return [snapshot(older), newer === undefined ? image! : snapshot(newer)];
}

type Text = (differences: AsyncIterable<Difference>) => AsyncGenerator<string>;

async function tell(
  first: MappedDisk,
  second: MappedDisk,
  args: Arguments,
  text: Text,
): Promise<void> {
  const progress = commandProgress(args);
  const options: DiffOptions = { metadataOnly: args.has('metadata'), progress };
  const lines: string[] = [];
  try {
    // Told when all is known: what is printed is whole, and no bar runs through it.
    for await (const line of text(diffDisks(first, second, options))) lines.push(line);
  } finally {
    progress.finish();
  }
  for (const line of lines) process.stdout.write(line);
}

async function* jsonText(differences: AsyncIterable<Difference>): AsyncGenerator<string> {
  let before = '[';
  for await (const { start, length, zero } of differences) {
    yield `${before}{ "start": ${start}, "length": ${length}, "zero": ${zero}}`;
    before = ',\n';
  }
  yield before === '[' ? '[]\n' : ']\n';
}

async function* humanText(differences: AsyncIterable<Difference>): AsyncGenerator<string> {
  const row = (offset: string, length: string, now: string) =>
    `${padRight(offset, COLUMN)}${padRight(length, COLUMN)}${now}\n`;
  yield row('Offset', 'Length', 'Now');
  for await (const { start, length, zero } of differences) {
    yield row(hex(start), hex(length), zero ? 'zeroes' : 'data');
  }
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
