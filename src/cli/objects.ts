/** `--object TYPE,id=…`: secrets and the like, which QEMU's tools take and images can refer to. */
import { createDecipheriv } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { errnoOf, ImageError } from '../errors.js';
import type { Secrets } from '../image/crypto/key-ring.js';
import { strerror } from '../sys/libc.js';
import { type OptionMap, parseJsonOptions } from './json-options.js';
import { parseKeyValues } from './key-values.js';

/** Types that QEMU's tools have. But for secrets, they change nothing about an image. */
const TYPES = [
  'authz-list',
  'authz-list-file',
  'authz-simple',
  'main-loop',
  'pr-manager-helper',
  'secret',
  'secret_keyring',
  'thread-context',
  'throttle-group',
  'tls-cipher-suites',
  'tls-creds-anon',
  'tls-creds-psk',
  'tls-creds-x509',
];

/** A machine's, which tools have no use for. */
const MACHINE_TYPES = ['iothread'];

/** Of the key and the vector that a secret is encrypted with. */
const SECRET_KEY_BYTES = 32;
const SECRET_IV_BYTES = 16;

const SECRET_KEYS = ['data', 'file', 'format', 'id', 'iv', 'keyid', 'qom-type'];

/** The secrets among the objects. Throws an ImageError, in QEMU's words, for what is no object. */
export function takeObjects(words: readonly string[]): Secrets {
  const secrets = new Map<string, Uint8Array | null>();
  for (const word of words) {
    const options = optionsOf(word);
    const id = checkObject(options);
    const secret = options.get('qom-type') === 'secret' ? secretBytes(options, secrets) : null;
    if (secrets.has(id)) {
      fail(`attempt to add duplicate property '${id}' to object (type 'container')`);
    }
    secrets.set(id, secret);
  }
  return secrets;
}

function optionsOf(word: string): OptionMap {
  if (word.startsWith('{')) {
    try {
      return parseJsonOptions(word);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      return fail(error.message.replace('Could not parse the JSON options: ', ''));
    }
  }
  const options: OptionMap = new Map();
  for (const [key, value] of parseKeyValues(word, 'qom-type')) {
    options.set(key, value ?? fail(`Expected '=' after parameter '${key}'`));
  }
  return options;
}

/** Answers its id. */
function checkObject(options: OptionMap): string {
  const type = options.get('qom-type') ?? '';
  if (type === '') fail("Parameter 'qom-type' is missing");
  const isMachines = MACHINE_TYPES.includes(type);
  if (!TYPES.includes(type) && !isMachines) {
    fail(`Parameter 'qom-type' does not accept value '${type}'`);
  }
  const id = options.get('id') ?? fail("Parameter 'id' is missing");
  if (type === 'secret') checkSecretWords(options);
  if (!/^[a-z][a-z0-9._-]*$/i.test(id)) {
    fail(
      "Parameter 'id' expects an identifier",
      "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.",
    );
  }
  if (isMachines) fail(`invalid object type: ${type}`);
  return id;
}

function checkSecretWords(options: OptionMap): void {
  const format = options.get('format') ?? 'raw';
  if (format !== 'raw' && format !== 'base64') {
    fail(`Parameter 'format' does not accept value '${format}'`);
  }
  const unknown = [...options.keys()].find((key) => !SECRET_KEYS.includes(key));
  if (unknown !== undefined) fail(`Parameter '${unknown}' is unexpected`);
}

/** What a secret says, read, decoded and decrypted; `known`: the objects before it. */
function secretBytes(options: OptionMap, known: Secrets): Uint8Array {
  const [data, file] = [options.get('data'), options.get('file')];
  if (data == null && file == null) fail("Either 'file' or 'data' must be provided");
  if (data != null && file != null) fail("'file' and 'data' are mutually exclusive");
  const bytes = file == null ? Buffer.from(data!) : readSecret(file);
  const keyId = options.get('keyid') ?? null;
  if (keyId !== null) return decryptSecret(bytes, keyId, options, known);
  return options.get('format') === 'base64' ? fromBase64(bytes) : bytes;
}

function readSecret(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    const why = strerror(errnoOf(error));
    return fail(`Unable to read ${file}: Failed to open file “${file}”: ${why}`);
  }
}

/** AES-256 in CBC mode, padded, with another secret for its key. */
function decryptSecret(
  bytes: Buffer,
  keyId: string,
  options: OptionMap,
  known: Secrets,
): Uint8Array {
  const key = known.get(keyId) ?? fail(`No secret with id '${keyId}'`);
  if (key.length !== SECRET_KEY_BYTES) fail(`Key should be ${SECRET_KEY_BYTES} bytes in length`);
  const iv = options.get('iv') ?? fail('IV is required to decrypt secret');
  const vector = fromBase64(Buffer.from(iv));
  if (vector.length !== SECRET_IV_BYTES) {
    fail(`IV should be ${SECRET_IV_BYTES} bytes in length not ${vector.length}`);
  }
  const encrypted = options.get('format') === 'base64' ? fromBase64(bytes) : bytes;
  if (encrypted.length === 0 || encrypted.length % SECRET_IV_BYTES !== 0) {
    fail(`Length ${encrypted.length} must be a multiple of block size ${SECRET_IV_BYTES}`);
  }
  const decipher = createDecipheriv('aes-256-cbc', key, vector).setAutoPadding(false);
  const padded = decipher.update(encrypted);
  // As QEMU: of the padding only the last byte is looked at.
  const padding = padded.at(-1)!;
  if (padding === 0 || padding > SECRET_IV_BYTES) {
    fail(`Incorrect number of padding bytes (${padding}) found on decrypted data`);
  }
  return padded.subarray(0, -padding);
}

/**
 * As GLib's, by which a passphrase is what it is for QEMU: characters count in groups of four, newlines
 * not at all. What is left behind the last group is dropped; `=` stands for zero bits, wherever it is, and
 * at a group's end for one byte less.
 */
function fromBase64(given: Uint8Array): Buffer {
  if (given.includes(0)) fail('Base64 data contains embedded NUL characters');
  const text = Buffer.from(given).toString('latin1');
  if (!/^[A-Za-z0-9+/=\n]*$/.test(text)) fail('Base64 data contains invalid characters');
  const groups = text.replaceAll('\n', '').match(/.{4}/g) ?? [];
  return Buffer.concat(groups.map(bytesOfGroup));
}

function bytesOfGroup(group: string): Buffer {
  const [first, second, third] = Buffer.from(group.replaceAll('=', 'A'), 'base64');
  const bytes = [first!];
  if (group[2] !== '=') bytes.push(second!);
  if (group[3] !== '=') bytes.push(third!);
  return Buffer.from(bytes);
}

function fail(message: string, hint?: string): never {
  throw new ImageError('invalid', 'EINVAL', message, hint === undefined ? {} : { hint });
}
