/** The library's options as those of what it is made of. */
import { ImageError } from '../errors.js';
import { KeyRing } from '../image/crypto/key-ring.js';
import type { OpenPolicy } from '../image/open.js';
import type { ImageSpec } from '../image/spec.js';
import type { WriteOptions } from '../image/write-options.js';
import type { CheckOptions, OpenOptions } from './types.js';

const NO_PASSPHRASE = 'the image is encrypted: a passphrase is needed';

/** The words that an option takes; null where it is no word, or anybody's. */
type Known<Options> = Readonly<Record<keyof Options, readonly unknown[] | null>>;

const CHECK_OPTIONS: Known<CheckOptions> = {
  ...{ format: null, noBacking: null, backingRoot: null, forceShare: null },
  repair: ['leaks', 'all'],
};

const OPEN_OPTIONS: Known<OpenOptions> = {
  ...{ format: null, noBacking: null, backingRoot: null, forceShare: null },
  ...{ writable: null, passphrases: null, cacheSize: null },
  cache: ['writeback', 'writethrough', 'none', 'directsync', 'unsafe'],
  discard: ['unmap', 'ignore'],
  detectZeroes: ['off', 'on', 'unmap'],
};

/** Throws an ImageError (EINVAL) where JavaScript says what TypeScript would not let pass. */
export function checkOpenOptions(options: OpenOptions): void {
  checkOptions(options, OPEN_OPTIONS);
}

export function checkCheckOptions(options: CheckOptions): void {
  checkOptions(options, CHECK_OPTIONS);
}

function checkOptions<Options extends object>(options: Options, known: Known<Options>): void {
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(known, name)) throw refused(`no option '${name}'`, Object.keys(known));
    const words = known[name as keyof Options];
    if (words === null || value === undefined || words.includes(value)) continue;
    throw refused(`option '${name}': '${value}'`, words);
  }
}

function refused(message: string, words: readonly unknown[]): ImageError {
  return new ImageError('invalid', 'EINVAL', message, { limit: words.join(', ') });
}

export function openPolicy({
  format,
  noBacking,
  backingRoot,
}: Pick<OpenOptions, 'format' | 'noBacking' | 'backingRoot'>): OpenPolicy {
  return { format, noBacking, backingRoot };
}

export function imageSpec(path: string, { passphrases = [] }: OpenOptions): ImageSpec {
  const keys = new KeyRing({
    passphrases: passphrases.map((text) =>
      typeof text === 'string' ? new TextEncoder().encode(text) : text,
    ),
    missing: NO_PASSPHRASE,
  });
  return { path, filename: path, keys };
}

export function writeOptions({ cache, discard, detectZeroes }: OpenOptions): Partial<WriteOptions> {
  return {
    ...(cache !== undefined && { cache }),
    ...(discard !== undefined && { discard }),
    ...(detectZeroes !== undefined && { detectZeroes }),
  };
}
