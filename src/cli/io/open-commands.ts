/** open, close, reopen. */
import { ImageError } from '../../errors.js';
import { type Arguments, type Option } from '../getopt.js';
import { cacheMode } from '../image-options.js';
import { parseImageName, parseImageOptions } from '../image-words.js';
import { parseKeyValues } from '../key-values.js';
import { problemText, reportError, reportWarning } from '../program.js';
import type { ImageSpec } from '../../image/spec.js';
import { letters } from './arguments.js';
import { ANY, type ImageCommand, type PlainCommand } from './command.js';
import { Complaint, WrongWords } from './complaint.js';
import { type OpenFlags, openIoImage } from './image.js';
import { reopenSpec } from './reopen.js';
import type { Session } from './session.js';

/** Options that say how an image is opened, for the command line and for `open`. */
export const OPEN_OPTIONS: readonly Option[] = [
  { long: 'read-only', short: 'r' },
  { long: 'snapshot', short: 's' },
  { long: 'copy-on-read', short: 'C' },
  { long: 'nocache', short: 'n' },
  { long: 'force-share', short: 'U' },
  { long: 'native-aio', short: 'k' },
  { long: 'aio', short: 'i', value: true },
  { long: 'cache', short: 't', value: true },
  { long: 'discard', short: 'd', value: true },
];

const DISCARD_MODES: Readonly<Record<string, boolean>> = {
  ignore: false,
  off: false,
  on: true,
  unmap: true,
};
const AIO_MODES = ['threads', 'native', 'io_uring'];

/** The last word on each counts. Throws an ImageError in QEMU's words. */
export function openFlags(args: Arguments): OpenFlags {
  // As QEMU: each write is durable when it is told of, but with -t or -n.
  let cache: OpenFlags['cache'] = 'writethrough';
  let discards = true;
  let direct = false;
  let native = false;
  for (const { name, value } of args.given) {
    if (name === 'nocache') [cache, direct] = ['none', true];
    if (name === 'cache') {
      const mode = cacheMode(value);
      if (mode === undefined) throw invalid(`Invalid cache option: ${value}`);
      [cache, direct] = [mode, mode === 'none'];
    }
    if (name === 'discard') {
      const mode = Object.hasOwn(DISCARD_MODES, value) ? DISCARD_MODES[value] : undefined;
      if (mode === undefined) throw invalid(`Invalid discard option: ${value}`);
      discards = mode;
    }
    if (name === 'aio' && !AIO_MODES.includes(value)) throw invalid(`Invalid aio option: ${value}`);
    if (name === 'native-aio') native = true;
    if (name === 'aio') native = value === 'native';
  }
  return {
    readOnly: args.has('read-only'),
    snapshot: args.has('snapshot'),
    copyOnRead: args.has('copy-on-read'),
    forceShare: args.has('force-share'),
    cache,
    discards,
    nativeAio: native && !direct,
  };
}

/** Opens the image for the session; its error has QEMU's words. */
export async function openInto(
  session: Session,
  name: string | undefined,
  parse: () => ImageSpec,
  flags: OpenFlags,
): Promise<void> {
  if (session.image !== null) throw invalid("file open already, try 'help close'");
  try {
    const spec = parse();
    session.image = await openIoImage(spec, flags);
  } catch (error) {
    const what = name === undefined ? "can't open" : `can't open device ${name}`;
    reportError(`${what}: ${withoutName(problemText(error), name)}`);
    throw new Complaint();
  }
}

/** QEMU says once which image cannot be opened, and the file's own words may say it again. */
function withoutName(text: string, name: string | undefined): string {
  const start = `Could not open '${name ?? ''}': `;
  return text.startsWith(start) && name !== undefined ? text.slice(start.length) : text;
}

export const OPEN: PlainCommand = {
  name: 'open',
  alias: 'o',
  usage: '[-rsCnkU] [-t cache] [-d discard] [-o options] [path]',
  summary: 'open the file specified by path',
  help: `Opens the image that the other commands work on.

-r  for reading alone
-s  throw away what is written
-C  keep in the image what is read from below it
-n  past the host's cache, as -t none
-U  though another process writes to it
-k  as -i native
-i  how QEMU does its I/O (threads, native, io_uring)
-t  the cache mode
-d  whether discards do anything (ignore, unmap)
-o  options, as in driver=qcow2,lazy-refcounts=on`,
  words: [1, ANY],
  options: [...OPEN_OPTIONS.map(shortAlone), { short: 'o', value: true }],
  run: async (session, args) => {
    const { operands } = args;
    if (session.imageOpts && args.has('o')) {
      throw new Complaint("--image-opts and 'open -o' are mutually exclusive");
    }
    const named = { ...args, ...longNames(args) };
    const flags = openFlags(named);
    if (operands.length > 1) throw new WrongWords();
    const [name] = operands;
    const words = args.last('o');
    if (name === undefined && words === undefined) throw new WrongWords();
    if (session.imageOpts) {
      await openInto(session, undefined, () => parseImageOptions(name!), flags);
    } else await openInto(session, name, () => specOf(name, words), flags);
  },
};

/** Commands have letters where the program has long names too. */
function shortAlone(option: Option): Option {
  return option.value === true ? { short: option.short!, value: true } : { short: option.short! };
}

function longNames(args: Arguments): Pick<Arguments, 'given' | 'has'> {
  const longs = new Map(OPEN_OPTIONS.map(({ long, short }) => [short!, long!]));
  const given = args.given.map(({ name, value }) => ({ name: longs.get(name) ?? name, value }));
  return { given, has: (name) => given.some((option) => option.name === name) };
}

/** An image by its name, by options, or by both. */
function specOf(name: string | undefined, words: string | undefined): ImageSpec {
  if (words === undefined) return parseImageName(name!);
  warnOfShortForms(words);
  if (name === undefined) return parseImageOptions(words);
  const keys = parseKeyValues(words).map(([key]) => key);
  if (keys.includes('file.filename')) {
    throw invalid("Can't specify 'file' and 'filename' options at the same time");
  }
  const path = parseImageName(name).path.replaceAll(',', ',,');
  return { ...parseImageOptions(`${words},file.filename=${path}`), filename: name };
}

export function warnOfShortForms(words: string): void {
  for (const [key, value] of parseKeyValues(words)) {
    if (value !== undefined) continue;
    reportWarning(`short-form boolean option '${key}' deprecated\nPlease use ${key}=on instead`);
  }
}

export const CLOSE: ImageCommand = {
  name: 'close',
  alias: 'c',
  summary: 'close the current open file',
  words: [0, 0],
  onImage: (session) => session.close(),
};

export const REOPEN: ImageCommand = {
  name: 'reopen',
  usage: '[(-r|-w)] [-c cache] [-o options]',
  summary: 'reopens an image with new options',
  help: `Goes on with the open image under other options.

-r  for reading alone
-w  for writing, too
-c  the cache mode
-o  options, as those of open`,
  words: [0, ANY],
  options: letters('c:o:rw'),
  onImage: async (session, args, image) => {
    if (args.has('r') && args.has('w')) throw invalid('Only one -r/-w option may be given');
    const cache = args.last('c');
    const mode = cache === undefined ? undefined : cacheMode(cache);
    if (cache !== undefined && mode === undefined) throw invalid(`Invalid cache option: ${cache}`);
    if (args.operands.length > 0) throw new WrongWords();
    const words = args.last('o');
    if (words !== undefined) warnOfShortForms(words);
    const readOnly = args.has('r') ? true : args.has('w') ? false : undefined;
    const { spec, flags } = reopenSpec(image, { readOnly, cache: mode, words });
    session.close();
    try {
      session.image = await openIoImage(spec, flags);
    } catch (error) {
      // As it was: it could be opened so before.
      session.image = await openIoImage(image.spec, image.flags);
      throw error;
    }
  },
};

function invalid(message: string): ImageError {
  return new ImageError('invalid', 'EINVAL', message);
}
