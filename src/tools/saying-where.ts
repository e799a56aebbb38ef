/** Errors of a step of a command, as QEMU's tools say them. */
import {
  describeError,
  type ErrnoName,
  errnoName,
  errnoOf,
  ImageError,
  isExpected,
} from '../errors.js';
import { strerror } from '../sys/libc.js';

/**
 * The error as `where`, with the system's words for it; what it says itself is the limit. Anything but an
 * image's or the system's error comes back as it is.
 */
export function sayingWhere(where: string, error: unknown): unknown {
  if (!isExpected(error)) return error;
  const errno = errnoOf(error);
  const code = errnoName(errno) as ErrnoName;
  const limit = describeError(error);
  return new ImageError('invalid', code, `${where}: ${strerror(errno)}`, { limit }, error);
}
