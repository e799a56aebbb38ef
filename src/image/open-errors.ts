/** Errors of opening, in QEMU's words: each names its file, and leads there from the image. */
import { errnoOf, ImageError, isExpected, errorCode } from '../errors.js';
import { strerror } from '../sys/libc.js';

/** Errors that say where they come from already. */
const named = new WeakSet<Error>();

/** Deeper down, it is no longer said at each layer that it is a backing file. */
const MOST_NAMED = 16;

/** Where in the chain a file is. */
export interface Place {
  /** As messages say it. */
  readonly name: string;
  /** Backing files above it. */
  readonly depth: number;
  /** The name of the image itself. */
  readonly image: string;
}

/** What goes wrong in the file's content carries the image's name, and how the file came in. */
export function within<T>(place: Place, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (!isExpected(error) || named.has(error)) throw error;
    const whole = error instanceof ImageError ? error : systemError(error);
    throw placed(place, whole, whole.context.operation);
  }
}

/**
 * The same for opening the file itself: `operation` is 'open' in such errors. `limit`: what is said
 * behind what the system says.
 */
export function opening<T>(place: Place, limit: string | undefined, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (!isExpected(error) || named.has(error)) throw error;
    if (error instanceof ImageError) throw placed(place, error, undefined);
    const { kind, code, message } = systemError(error);
    const text = `Could not open '${place.name}': ${message}`;
    const context = limit === undefined ? {} : { limit };
    throw placed(place, new ImageError(kind, code, text, context, error), 'open');
  }
}

function placed({ name, depth, image }: Place, error: ImageError, operation?: string): ImageError {
  const { limit, ...context } = error.context;
  const by = 'Could not open backing file: '.repeat(Math.min(depth, MOST_NAMED));
  // The image's own file says its name itself: once is enough here.
  const plain = operation === 'open' && depth === 0 && name === image;
  const start = plain ? '' : `Could not open '${image}': ${by}`;
  const hint = depth > 0 && !error.message.includes(name) ? `in '${name}'` : undefined;
  const limits = [hint, limit].filter((text) => text !== undefined).join('; ');
  const result = new ImageError(
    error.kind,
    error.code,
    `${start}${error.message}`,
    {
      ...context,
      path: name,
      ...(operation === undefined ? {} : { operation }),
      ...(limits === '' ? {} : { limit: limits }),
    },
    error,
  );
  named.add(result);
  return result;
}

/** A failed system call as an error of the image, in the C library's words. */
export function systemError(error: Error): ImageError {
  const code = errorCode(error);
  return new ImageError(code === 'ENOENT' ? 'missing' : 'invalid', code, strerror(errnoOf(error)));
}
