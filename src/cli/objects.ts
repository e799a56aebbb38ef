/** `--object TYPE,id=…`: secrets and the like, which QEMU's tools take and images can refer to. */
import { ImageError } from '../errors.js';
import { parseKeyValues } from './key-values.js';

/** Types that QEMU's tools have, and that change nothing about an image that is not encrypted. */
const TYPES = [
  'authz-list',
  'authz-simple',
  'iothread',
  'secret',
  'secret_keyring',
  'throttle-group',
  'tls-creds-anon',
  'tls-creds-psk',
  'tls-creds-x509',
];

/** Throws an ImageError, in QEMU's words, for what is no object. */
export function checkObjects(words: readonly string[]): void {
  for (const word of words) checkObject(word);
}

function checkObject(word: string): void {
  const options = new Map(parseKeyValues(word, 'qom-type'));
  const type = options.get('qom-type') ?? '';
  if (!TYPES.includes(type)) fail(`Parameter 'qom-type' does not accept value '${type}'`);
  if (options.get('id') === undefined) fail("Parameter 'id' is missing");
  if (type !== 'secret') return;
  const [data, file] = [options.get('data'), options.get('file')];
  if (data === undefined && file === undefined) fail("Either 'file' or 'data' must be provided");
  if (data !== undefined && file !== undefined) {
    fail("'file' and 'data' are mutually exclusive");
  }
}

function fail(message: string): never {
  throw new ImageError('invalid', 'EINVAL', message);
}
