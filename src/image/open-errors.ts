/** Errors of opening: each names its file, and the image that names the file. */
import { type ErrnoName, errnoName, errnoOf, ImageError, isExpected } from '../errors.js';
import { strerror } from '../sys/libc.js';

/** Errors that carry their file's name already. */
const named = new WeakSet<Error>();

/** Errors of one file carry its name, and the name of the image that names it. */
export function within<T>(path: string, by: string | undefined, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw nameError(path, by, error);
  }
}

function nameError(path: string, by: string | undefined, error: unknown): unknown {
  if (!isExpected(error) || named.has(error)) return error;
  const whole = error instanceof ImageError ? error : systemError(error);
  const result = new ImageError(
    whole.kind,
    whole.code,
    `Could not open '${path}': ${whole.message}${by === undefined ? '' : ` (named by '${by}')`}`,
    { ...whole.context, path },
    error,
  );
  named.add(result);
  return result;
}

/** A failed system call as an error of the image, in the C library's words. */
export function systemError(error: Error): ImageError {
  const errno = errnoOf(error);
  const code = errnoName(errno) as ErrnoName;
  return new ImageError(code === 'ENOENT' ? 'missing' : 'invalid', code, strerror(errno));
}
