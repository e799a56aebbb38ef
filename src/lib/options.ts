/** The library's options as those of what it is made of. */
import { KeyRing } from '../image/crypto/key-ring.js';
import type { OpenPolicy } from '../image/open.js';
import type { ImageSpec } from '../image/spec.js';
import type { WriteOptions } from '../image/write-options.js';
import type { OpenOptions } from './types.js';

const NO_PASSPHRASE = 'the image is encrypted: a passphrase is needed';

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
