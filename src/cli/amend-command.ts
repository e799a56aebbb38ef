/** `qcow2fs amend`, as `qemu-img amend`. */
import { ImageError, isExpected } from '../errors.js';
import type { KeyRing } from '../image/crypto/key-ring.js';
import { amendImage } from '../tools/amend.js';
import type { OpenDisk } from '../tools/open-disk.js';
import { OPTIONS } from './command-options.js';
import { openTold } from './open-told.js';
import { amendHelp, asksForHelp, parseAmendOptions } from './amend-options.js';
import { commandProgress } from './command-progress.js';
import { type Arguments, getopt } from './getopt.js';
import { cacheMode, imageSpec } from './image-options.js';
import type { Outcome } from './outcome.js';
import { warnOfProbing } from './probing.js';
import { UsageError } from './program.js';

export async function runAmendCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS.amend);
  const options = optionList(args);
  const help = asksForHelp(options);
  const format = args.last('f');
  if (help && format !== undefined) {
    process.stdout.write(amendHelp(format));
    return { status: 0 };
  }
  const [filename] = args.operands;
  if (filename === undefined || args.operands.length !== 1) {
    throw new ImageError('invalid', 'EINVAL', 'Expecting one image file name');
  }
  const cache = cacheMode(args.last('t') ?? 'writeback');
  if (cache === undefined) {
    throw new ImageError('invalid', 'EINVAL', `Invalid cache option: ${args.last('t')}`);
  }
  const spec = imageSpec(filename, args);
  const disk = await openTold(spec, {
    writable: true,
    write: { cache },
  });
  try {
    warnOfProbing(disk);
    const [top] = disk.description.layers;
    if (help) process.stdout.write(amendHelp(top.format));
    else await amend(disk, options, args, spec.keys!);
  } finally {
    disk.abandon();
  }
  return { status: 0 };
}

/** All that `-o` gave. */
function optionList(args: Arguments): string {
  const lists = args.all('o');
  for (const list of lists) {
    // Two commas are one of a name.
    const ends = /(?:^|[^,])(?:,,)*,$/.test(list);
    if (list !== '' && !list.startsWith(',') && !ends) continue;
    throw new ImageError('invalid', 'EINVAL', `Invalid option list: ${list}`);
  }
  if (lists.length === 0) throw new UsageError('Must specify options (-o)');
  return lists.join();
}

async function amend(
  disk: OpenDisk,
  options: string,
  args: Arguments,
  keys: KeyRing,
): Promise<void> {
  const progress = commandProgress(args, args.has('q'));
  try {
    const request = parseAmendOptions(options, disk.description.layers[0]);
    const how = { keys, force: args.has('force') };
    await amendImage(disk, request, progress, how);
    progress.complete();
  } catch (error) {
    // As QEMU: whatever came of it, that was all.
    if (isExpected(error)) progress.complete();
    throw error;
  } finally {
    progress.finish();
  }
}
