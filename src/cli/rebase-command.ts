/** `qcow2fs rebase`, as `qemu-img rebase`; `-c` as later versions of it have. */
import { ImageError } from '../errors.js';
import { fullName } from '../image/file-names.js';
import { FOREIGN_FORMATS } from '../image/open.js';
import { loadZstd } from '../image/qcow2/compression.js';
import { closeAfter, type OpenDisk } from '../tools/open-disk.js';
import { OPTIONS } from './command-options.js';
import { openTold } from './open-told.js';
import type { Progress } from '../tools/progress.js';
import { refused, renameBacking, takeDifferences } from '../tools/rebase.js';
import { commandProgress } from './command-progress.js';
import { type Arguments, getopt } from './getopt.js';
import { cacheOption, imageSpec, sourceCacheOption } from './image-options.js';
import { openWritable } from './open-writable.js';
import type { Outcome } from './outcome.js';
import { UsageError } from './program.js';

const FORMATS = ['qcow2', 'raw', 'file', 'host_device', ...FOREIGN_FORMATS];

export async function runRebaseCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS.rebase);
  const [filename] = args.operands;
  if (filename === undefined || args.operands.length !== 1) {
    throw new UsageError('Expecting one image file name');
  }
  if (!args.has('u') && !args.has('b')) {
    throw new UsageError('Must specify backing file (-b) or use unsafe mode (-u)');
  }
  const progress = commandProgress(args, args.has('q'));
  try {
    await rebase(filename, args, progress);
  } finally {
    progress.finish();
  }
  return { status: 0 };
}

async function rebase(filename: string, args: Arguments, progress: Progress): Promise<void> {
  const write = cacheOption(args);
  sourceCacheOption(args);
  const spec = { ...imageSpec(filename, args), forceShare: undefined };
  const alone = args.has('u') ? { backing: null } : {};
  const overlay = await openWritable({ ...spec, ...alone }, write);
  await closeAfter(overlay, async () => {
    const format = args.last('F');
    if (format !== undefined && !FORMATS.includes(format)) {
      throw new ImageError('invalid', 'EINVAL', `Invalid format name: '${format}'`);
    }
    const file = args.last('b') ?? '';
    if (!args.has('u')) await takeAll(overlay, spec.path, file, args, progress);
    await progress.advance(1);
    refuseWithoutFormat(file, format);
    renameBacking(overlay, file, format ?? null);
  });
}

/** Takes into the image what it would lose. */
async function takeAll(
  overlay: OpenDisk,
  path: string,
  file: string,
  args: Arguments,
  progress: Progress,
): Promise<void> {
  // For data that is compressed, whatever is below.
  if (args.has('c')) await loadZstd();
  if (file === '') {
    await takeDifferences(overlay, null, args.has('c'), progress);
    return;
  }
  const next = await openNext(fullName(path, file), file, args);
  try {
    refuseWithoutFormat(file, args.last('F'));
    await takeDifferences(overlay, next, args.has('c'), progress);
  } finally {
    next.abandon();
  }
}

async function openNext(path: string, file: string, args: Arguments): Promise<OpenDisk> {
  try {
    const spec = imageSpec(path, args, { format: args.last('F'), imageOpts: false });
    return await openTold(spec, { write: sourceCacheOption(args) });
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const why = error.message.replace(`Could not open '${path}': `, '');
    const message = `Could not open new backing file '${file}': ${why}`;
    throw new ImageError(error.kind, error.code, message, error.context, error);
  }
}

/** A format that is guessed can be what a guest made of it. */
function refuseWithoutFormat(file: string, format: string | undefined): void {
  if (file !== '' && format === undefined) throw refused(file, 'backing format must be specified');
}
