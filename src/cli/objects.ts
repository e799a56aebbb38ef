/** `--object TYPE,id=…`: secrets and the like, which QEMU's tools take and images can refer to. */
import { accessSync, constants } from 'node:fs';
import { errnoOf, ImageError } from '../errors.js';
import { strerror } from '../sys/libc.js';
import { type OptionMap, parseJsonOptions } from './json-options.js';
import { parseKeyValues } from './key-values.js';

/** Types that QEMU's tools have, and that change nothing about an image that is not encrypted. */
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

const SECRET_KEYS = ['data', 'file', 'format', 'id', 'iv', 'keyid', 'qom-type'];

/** Throws an ImageError, in QEMU's words, for what is no object. */
export function checkObjects(words: readonly string[]): void {
  const ids = new Set<string>();
  for (const word of words) {
    const options = optionsOf(word);
    const id = checkObject(options);
    if (ids.has(id)) {
      fail(`attempt to add duplicate property '${id}' to object (type 'container')`);
    }
    ids.add(id);
  }
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
  if (type === 'secret') checkSecret(options);
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

function checkSecret(options: OptionMap): void {
  const [data, file] = [options.get('data'), options.get('file')];
  if (data == null && file == null) fail("Either 'file' or 'data' must be provided");
  if (data != null && file != null) fail("'file' and 'data' are mutually exclusive");
  if (file == null) return;
  try {
    accessSync(file, constants.R_OK);
  } catch (error) {
    fail(`Unable to read ${file}: Failed to open file “${file}”: ${strerror(errnoOf(error))}`);
  }
}

function fail(message: string, hint?: string): never {
  throw new ImageError('invalid', 'EINVAL', message, hint === undefined ? {} : { hint });
}
