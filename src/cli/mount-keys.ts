/** Where a mount's keys come from: a file, secrets among the objects, or the terminal. */
import { readFileSync } from 'node:fs';
import { errnoOf, ImageError, isExpected } from '../errors.js';
import { KeyRing, type KeySources, type Secrets } from '../image/crypto/key-ring.js';
import { closeImage, openImage, type OpenPolicy } from '../image/open.js';
import { strerror } from '../sys/libc.js';
import { printable } from '../sys/log.js';
import { askOnTerminal, hasTerminal } from '../sys/terminal.js';

const MISSING = "the image is encrypted: 'key-file' or 'key-secret' gives its passphrase";

/** `file`, `ids`: what the options say. Throws an ImageError where they lead to nothing. */
export function mountKeys(
  file: string | undefined,
  ids: string | undefined,
  secrets: Secrets,
): KeySources {
  const passphrases: Uint8Array[] = [];
  const ring = new KeyRing({ secrets });
  for (const id of ids?.split(':') ?? []) passphrases.push(ring.secret(id));
  if (file !== undefined) passphrases.push(readKey(file));
  return { passphrases, missing: MISSING };
}

function readKey(file: string): Uint8Array {
  try {
    return readFileSync(file);
  } catch (error) {
    if (!isExpected(error)) throw error;
    const message = `option 'key-file': ${file}: ${strerror(errnoOf(error))}`;
    throw new ImageError('invalid', 'EINVAL', message, {}, error);
  }
}

/** The mount's keys; whoever has a terminal is asked for what is missing. */
export function mountKeyRing(sources: KeySources, told: readonly Uint8Array[] = []): KeyRing {
  const given = sources.passphrases ?? [];
  return new KeyRing({
    ...sources,
    passphrases: [...given, ...told],
    ...(given.length === 0 && { ask }),
  });
}

function ask(name: string): Uint8Array | null {
  return askOnTerminal(`Passphrase of ${printable(name)}: `);
}

/**
 * What a daemon, who has no terminal, will need: asks for it where no option gives a key. What else is wrong
 * with the image is for the daemon to tell.
 */
export function askBeforehand(
  sources: KeySources,
  policy: OpenPolicy,
  image: string,
): readonly Uint8Array[] {
  if ((sources.passphrases ?? []).length > 0 || !hasTerminal()) return [];
  let asked = false;
  const keys = new KeyRing({
    ...sources,
    ask: (name) => {
      const passphrase = ask(name);
      asked = passphrase !== null;
      return passphrase;
    },
  });
  try {
    const { format, noBacking, backingRoot } = policy;
    const looking = { format, noBacking, backingRoot, noDataFiles: true };
    closeImage(openImage({ path: image, filename: image, keys }, looking).description);
  } catch (error) {
    if (!isExpected(error) || asked) throw error;
  }
  return keys.passphrases;
}
