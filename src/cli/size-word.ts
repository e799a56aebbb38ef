/** Sizes on the command line. */
import { parseExactSize } from '../codec/size-text.js';
import { ImageError } from '../errors.js';
import { reportError, reportWarning } from './program.js';

/** Can be told from a number by the unit alone. */
const HEXADECIMAL_UNIT = /0x[0-9a-f]+[kmgtp]$/i;

/** QEMU's sizes have a sign. */
const MOST = 2n ** 63n - 1n;

/** Bytes; `what` names the size in errors. Not exact above 2^53. */
export function sizeWord(what: string, text: string): number {
  return Number(exactSizeWord(what, text));
}

/** The same, exact. */
export function exactSizeWord(what: string, text: string): bigint {
  const size = parseExactSize(text);
  if (size === 'invalid') {
    // Two lines, and each has the program's name.
    reportError(`Invalid ${what} specified. You may use k, M, G, T, P or E suffixes for`);
    throw invalid('kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.');
  }
  if (size === 'range' || size > MOST) {
    throw invalid(`Invalid ${what} specified. Must be between 0 and ${MOST}.`);
  }
  if (HEXADECIMAL_UNIT.test(text)) {
    reportWarning(`Using a multiplier suffix on hex numbers is deprecated: ${text}`);
  }
  return size;
}

function invalid(message: string): ImageError {
  return new ImageError('invalid', 'EINVAL', message);
}
