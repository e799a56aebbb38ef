/** `qcow2fs bitmap`, as `qemu-img bitmap`: the persistent bitmaps of a closed image. */
import { ImageError, invalid } from '../errors.js';
import { ActionFailed, type BitmapAction, editBitmap } from '../tools/bitmaps.js';
import { closeAfter, type OpenDisk } from '../tools/open-disk.js';
import { OPTIONS } from './command-options.js';
import { openTold } from './open-told.js';
import { type Arguments, getopt } from './getopt.js';
import { imageSpec } from './image-options.js';
import { openWritable } from './open-writable.js';
import type { Outcome } from './outcome.js';
import { sizeWord } from './size-word.js';

const SIMPLE = ['remove', 'clear', 'enable', 'disable'] as const;

/** QEMU takes a granularity of 32 bits. */
const GRANULARITY_MODULUS = 2 ** 32;

export async function runBitmapCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS.bitmap);
  const { granularity, actions } = actionsOf(args);
  const [filename, name, ...others] = args.operands;
  if (filename === undefined || name === undefined || others.length > 0) {
    throw invalid('Expecting filename and bitmap name');
  }
  checkTogether(args, actions, granularity);
  const disk = await openWritable({ ...imageSpec(filename, args), backing: null });
  await closeAfter(disk, async () => {
    const source = await openSource(args);
    try {
      edit(disk, name, actions, source);
    } finally {
      source?.abandon();
    }
  });
  return { status: 0 };
}

/** In their order. */
function actionsOf(args: Arguments): { granularity: number; actions: BitmapAction[] } {
  let granularity = 0;
  for (const { name, value } of args.given) {
    if (name === 'granularity') granularity = sizeWord('granularity', value);
  }
  const given = granularity === 0 ? undefined : granularity % GRANULARITY_MODULUS;
  const actions: BitmapAction[] = [];
  for (const { name, value } of args.given) {
    if (name === 'add') actions.push({ what: 'add', granularity: given });
    else if (name === 'merge') actions.push({ what: 'merge', from: value });
    else {
      const what = SIMPLE.find((known) => known === name);
      if (what !== undefined) actions.push({ what });
    }
  }
  return { granularity, actions };
}

function checkTogether(
  args: Arguments,
  actions: readonly BitmapAction[],
  granularity: number,
): void {
  const does = (wanted: string) => actions.some(({ what }) => what === wanted);
  if (actions.length === 0) {
    throw invalid('Need at least one of --add, --remove, --clear, --enable, --disable, or --merge');
  }
  if (granularity !== 0 && !does('add')) throw invalid('granularity only supported with --add');
  if (args.has('source-format') && !args.has('source-file'))
    throw invalid('-F only supported with -b');
  if (args.has('source-file') && !does('merge')) {
    throw invalid('Merge bitmap source file only supported with --merge');
  }
}

/** The image that bitmaps are merged from, where it is another one. */
async function openSource(args: Arguments): Promise<OpenDisk | null> {
  const file = args.last('source-file');
  if (file === undefined) return null;
  const spec = imageSpec(file, args, {
    format: args.last('source-format') ?? null,
    imageOpts: false,
  });
  return await openTold({ ...spec, backing: null });
}

function edit(
  disk: OpenDisk,
  name: string,
  actions: readonly BitmapAction[],
  source: OpenDisk | null,
): void {
  try {
    editBitmap(disk, name, actions, source);
  } catch (error) {
    if (!(error instanceof ActionFailed)) throw error;
    const { action, cause, message } = error;
    const words = `Operation ${action} on bitmap ${name} failed: ${message}`;
    const context = cause instanceof ImageError ? cause.context : {};
    throw new ImageError('invalid', 'EINVAL', words, context, cause);
  }
}
