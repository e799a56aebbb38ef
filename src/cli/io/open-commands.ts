/** open, close, reopen. */
import { ImageError, invalid } from '../../errors.js';
import type { ImageSpec } from '../../image/spec.js';
import { OPEN_OPTIONS } from '../command-options.js';
import type { Arguments, Option } from '../getopt.js';
import { cacheMode } from '../image-options.js';
import { FAULTY, faultyName } from '../fault-options.js';
import { parseImageName, parseImageOptions } from '../image-words.js';
import { parseKeyValues } from '../key-values.js';
import { letters } from './arguments.js';
import { ANY, type ImageCommand, type PlainCommand } from './command.js';
import { Complaint, WrongWords } from './complaint.js';
import { openIoImage } from './image.js';
import { openFlags, openInto, warnOfShortForms, withoutName } from './opening.js';
import { reopenSpec } from './reopen.js';

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
      await openInto(
        session,
        { name: undefined, words: name! },
        () => parseImageOptions(name!),
        flags,
      );
    } else {
      const given = { name, words: name ?? words! };
      await openInto(session, given, () => specOf(name, words), flags);
    }
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
  const given = parseKeyValues(words);
  if (given.some(([key]) => key === 'file.filename')) {
    throw invalid("Can't specify 'file' and 'filename' options at the same time");
  }
  const path = nameOfFile(name).replaceAll(',', ',,');
  const isFaulty = given.some(([key, value]) => key === 'driver' && value === FAULTY);
  const whole = `${isFaulty ? 'filename' : 'file.filename'}=${path},${words}`;
  try {
    return { ...parseImageOptions(whole), filename: name };
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    throw new ImageError(error.kind, error.code, withoutName(error.message, whole), error.context);
  }
}

/** What options say that they stand on: a name with faults on purpose stays one. */
function nameOfFile(name: string): string {
  return faultyName(name) === undefined ? parseImageName(name).path : name;
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
      if (!(error instanceof ImageError)) throw error;
      const message = withoutName(error.message, image.spec.filename);
      throw new ImageError(error.kind, error.code, message, error.context, error);
    }
  },
};
