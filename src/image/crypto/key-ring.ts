/**
 * What encrypted images are opened with: secrets by their ids, and passphrases that are tried on each layer
 * that none is stated for. It remembers master keys: opening an image once more costs no second stretching.
 */
import { ImageError, invalid } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import type { LuksHeader } from './luks-header.js';
import { openKeySlot } from './luks-key.js';

/** Bytes by id; null of an object that is none. */
export type Secrets = ReadonlyMap<string, Uint8Array | null>;

/** Asks for the passphrase of the image of that name; null where there is nobody to ask. */
export type AskPassphrase = (name: string) => Uint8Array | null;

const NO_KEY = "Parameter 'encrypt.key-secret' is required for cipher";

/** How often one may mistype. */
const MOST_QUESTIONS = 3;

export interface KeySources {
  readonly secrets?: Secrets;
  readonly passphrases?: readonly Uint8Array[];
  readonly ask?: AskPassphrase;
  /** What is said where there is no key: the words of QEMU's tools, where it is not given. */
  readonly missing?: string;
}

export class KeyRing {
  readonly #secrets: Secrets;
  readonly #passphrases: Uint8Array[];
  readonly #ask: AskPassphrase;
  readonly #missing: string;
  /** Master keys, by their digests and what has opened them. */
  readonly #known = new Map<string, Uint8Array>();

  constructor(sources: KeySources = {}) {
    this.#secrets = sources.secrets ?? new Map();
    this.#passphrases = [...(sources.passphrases ?? [])];
    this.#ask = sources.ask ?? (() => null);
    this.#missing = sources.missing ?? NO_KEY;
  }

  /** Those that are tried, with those that were asked for and opened something. */
  get passphrases(): readonly Uint8Array[] {
    return this.#passphrases;
  }

  /** The secret with that id: a text. Throws an ImageError in QEMU's words. */
  secret(id: string): Uint8Array {
    const secret = this.#secrets.get(id);
    if (secret === undefined) throw invalid(`No secret with id '${id}'`);
    if (secret === null) throw invalid(`Object with id '${id}' is not a secret`);
    try {
      // As GLib, to which a NUL is the end of a text and no part of it.
      if (secret.includes(0)) throw new TypeError('a NUL');
      new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(secret);
    } catch {
      throw invalid(`Data from secret ${id} is not valid UTF-8`);
    }
    return secret;
  }

  /**
   * The master key of the LUKS header at `offset` of `storage`, by the secret with the id `stated`, or by
   * the passphrases. Throws an ImageError in QEMU's words where none opens it.
   */
  masterKey(
    storage: Storage,
    offset: number,
    header: LuksHeader,
    stated: string | undefined,
  ): Uint8Array {
    const open = (passphrase: Uint8Array): Uint8Array | undefined => {
      const known = this.#known.get(nameOf(header, passphrase));
      if (known !== undefined) return known;
      const key = openKeySlot(storage, offset, header, passphrase)?.key;
      if (key !== undefined) this.learn(header, passphrase, key);
      return key;
    };
    if (stated === undefined) return this.#first(storage.name, open);
    const key = open(this.secret(stated));
    if (key === undefined) throw wrongPassword();
    return key;
  }

  /** The passphrase opens that header: whoever opens it again need not find out. */
  learn(header: LuksHeader, passphrase: Uint8Array, key: Uint8Array): void {
    this.#known.set(nameOf(header, passphrase), key);
  }

  /** The passphrase of an image that any fits: the secret `stated`, or the first one there is. */
  passphrase(name: string, stated: string | undefined): Uint8Array {
    if (stated !== undefined) return this.secret(stated);
    return this.#first(name, (passphrase) => passphrase);
  }

  /** What `open` makes of the first passphrase that it answers anything for. */
  #first<T>(name: string, open: (passphrase: Uint8Array) => T | undefined): T {
    for (const passphrase of this.#passphrases) {
      const opened = open(passphrase);
      if (opened !== undefined) return opened;
    }
    let tried = this.#passphrases.length > 0;
    for (let question = 0; question < MOST_QUESTIONS; question++) {
      const passphrase = this.#ask(name);
      if (passphrase === null) break;
      tried = true;
      const opened = open(passphrase);
      if (opened === undefined) continue;
      this.#passphrases.push(passphrase);
      return opened;
    }
    throw tried ? wrongPassword() : new ImageError('policy', 'EACCES', this.#missing);
  }
}

function nameOf({ digest, digestSalt }: LuksHeader, passphrase: Uint8Array): string {
  return Buffer.concat([digest, digestSalt, passphrase]).toString('hex');
}

function wrongPassword(): ImageError {
  return new ImageError('policy', 'EACCES', 'Invalid password, cannot unlock any keyslot');
}
