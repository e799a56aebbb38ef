/** Errors of a step of a command, as QEMU's tools say them. */
import { describeError, errnoOf, ImageError, isExpected, errorCode } from '../errors.js';
import { strerror } from '../sys/libc.js';

/**
 * The error as `where`, with the system's words for it; what it says itself is the limit. Anything but an
 * image's or the system's error comes back as it is.
 */
export function sayingWhere(where: string, error: unknown): unknown {
  if (!isExpected(error)) return error;
  const limit = describeError(error);
  const message = `${where}: ${strerror(errnoOf(error))}`;
  return new ImageError('invalid', errorCode(error), message, { limit }, error);
}
