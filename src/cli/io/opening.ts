/** How qemu-io opens an image: the options that say so, and the words where it cannot be. */
import { isDirect } from '../../image/write-options.js';
import { invalid } from '../../errors.js';
import type { ImageSpec } from '../../image/spec.js';
import { advised } from '../advised.js';
import type { Arguments } from '../getopt.js';
import { cacheMode } from '../image-options.js';
import { parseKeyValues } from '../key-values.js';
import { problemText, reportError, reportWarning } from '../program.js';
import { Complaint } from './complaint.js';
import { type OpenFlags, openIoImage } from './image.js';
import type { Session } from './session.js';

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
      [cache, direct] = [mode, isDirect(mode)];
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

/**
 * Opens the image for the session. `name`: as messages call it, where they do; `words`: what `parse`
 * takes it from. Its error is printed in QEMU's words, before the Complaint.
 */
export async function openInto(
  session: Session,
  { name, words }: { readonly name: string | undefined; readonly words: string },
  parse: () => ImageSpec,
  flags: OpenFlags,
): Promise<void> {
  if (session.image !== null) throw invalid("file open already, try 'help close'");
  try {
    session.image = await openIoImage({ ...parse(), keys: session.keys }, flags);
  } catch (error) {
    const what = name === undefined ? "can't open" : `can't open device ${name}`;
    reportError(`${what}: ${withoutName(problemText(await advised(error)), words)}`);
    throw new Complaint();
  }
}

/** QEMU says once which image cannot be opened, and the file's own words may say it again. */
export function withoutName(text: string, name: string): string {
  const start = `Could not open '${name}': `;
  return text.startsWith(start) ? text.slice(start.length) : text;
}

/** Words without a value, which QEMU takes for switches. */
export function warnOfShortForms(words: string): void {
  for (const [key, value] of parseKeyValues(words)) {
    if (value !== undefined) continue;
    reportWarning(`short-form boolean option '${key}' deprecated\nPlease use ${key}=on instead`);
  }
}

/** What is wrong with how a command is called. */
