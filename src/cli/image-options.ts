/** Options that commands on images share, and what they say. */
import { ImageError } from '../errors.js';
import { KeyRing } from '../image/crypto/key-ring.js';
import type { WriteOptions } from '../image/write-options.js';
import type { ImageSpec } from '../image/spec.js';
import type { Arguments } from './getopt.js';
import { parseImageName, parseImageOptions } from './image-words.js';
import { takeObjects } from './objects.js';

/**
 * The image that an operand names, by what the options say of it. `format`: of an option of another
 * name; `-f` where it is not given.
 */
export function imageSpec(
  word: string,
  args: Arguments,
  { format = args.last('f'), imageOpts = args.has('image-opts') }: ImageWordOptions = {},
): ImageSpec {
  const keys = keysOf(args);
  if (imageOpts && format != null) {
    const message = '--image-opts and --format are mutually exclusive';
    throw new ImageError('invalid', 'EINVAL', message);
  }
  const spec = imageOpts ? parseImageOptions(word) : parseImageName(word);
  checkOnlyRead(spec);
  return {
    ...spec,
    keys,
    ...(format != null && { format }),
    ...(args.knows('force-share') && {
      forceShare: args.has('force-share') || spec.forceShare === true,
    }),
  };
}

/** What changes what single requests do is for the command that makes them. */
function checkOnlyRead({ requestFaults, copyOnRead, compress, filename }: ImageSpec): void {
  let what = '';
  if (requestFaults !== undefined) what = 'rules of errors over a format';
  else if (copyOnRead === true) what = "driver 'copy-on-read'";
  else if (compress === true) what = "driver 'compress'";
  else return;
  const message = `Could not open '${filename}': ${what}: only 'io' has them`;
  throw new ImageError('unsupported', 'ENOTSUP', message);
}

/** The secrets that `--object` gives. */
export function keysOf(args: Arguments): KeyRing {
  return new KeyRing({ secrets: takeObjects(args.all('object')) });
}

export interface ImageWordOptions {
  /** Null where none is stated. */
  readonly format?: string | null | undefined;
  /** Whether the word is a list of options. */
  readonly imageOpts?: boolean;
}

/** How a command's facts are printed. */
export function outputFormat(args: Arguments): 'human' | 'json' {
  const output = args.last('output') ?? 'human';
  if (output === 'human' || output === 'json') return output;
  const message = '--output must be used with human or json as argument.';
  throw new ImageError('invalid', 'EINVAL', message);
}

const CACHE_MODES: Readonly<Record<string, WriteOptions['cache']>> = {
  directsync: 'directsync',
  none: 'none',
  off: 'none',
  unsafe: 'unsafe',
  writeback: 'writeback',
  writethrough: 'writethrough',
};

/** The cache mode of `-t` or `-T`; undefined where there is none of that name. */
export function cacheMode(text: string): WriteOptions['cache'] | undefined {
  return Object.hasOwn(CACHE_MODES, text) ? CACHE_MODES[text] : undefined;
}

/** How what is written to is cached: `-t`. */
export function cacheOption(args: Arguments): Partial<WriteOptions> {
  return cacheNamed('cache', args.last('t'));
}

/** How what is read is cached: `-T`. */
export function sourceCacheOption(args: Arguments): Partial<WriteOptions> {
  return cacheNamed('source cache', args.last('T'));
}

function cacheNamed(what: string, text: string | undefined): Partial<WriteOptions> {
  if (text === undefined) return {};
  const cache = cacheMode(text);
  if (cache !== undefined) return { cache };
  throw new ImageError('invalid', 'EINVAL', `Invalid ${what} option: ${text}`);
}
