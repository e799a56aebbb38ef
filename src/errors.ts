/**
 * The errors of this program. Whatever an image, the system or a user does wrong becomes one of
 * these two; anything else that is thrown is a bug of ours.
 */
import { constants } from 'node:os';

export type ErrnoName = keyof typeof constants.errno;

/** The numbers of the host's <errno.h>, by name. */
export const ERRNO: Readonly<Record<ErrnoName, number>> = constants.errno;

const NAME_OF = new Map<number, ErrnoName>(
  (Object.entries(ERRNO) as [ErrnoName, number][]).map(([name, value]) => [value, name]),
);

/** The name of an errno (`EIO`), or the number in words where the host has no name for it. */
export function errnoName(errno: number): string {
  return NAME_OF.get(errno) ?? `errno ${errno}`;
}

/**
 * What kind of trouble it is: `invalid` (breaks the format), `unsupported` (valid, but not known
 * here), `corrupt` (contradicts itself), `policy` (forbidden by the user's options), `missing`.
 */
export type ErrorKind = 'invalid' | 'unsupported' | 'corrupt' | 'policy' | 'missing';

export interface ErrorContext {
  readonly path?: string;
  readonly offset?: number;
  readonly operation?: string;
  /** What would have been right, in words: printed in parentheses behind the message. */
  readonly limit?: string;
  /** Another thread has put it into the log. */
  readonly told?: boolean;
  /** A second line that QEMU's tools print: only where scripts may look for it. */
  readonly hint?: string;
}

/** Something is wrong with an image, or with what is asked of it. */
export class ImageError extends Error {
  readonly kind: ErrorKind;
  readonly code: ErrnoName;
  readonly errno: number;
  readonly context: ErrorContext;

  constructor(
    kind: ErrorKind,
    code: ErrnoName,
    message: string,
    context: ErrorContext = {},
    cause?: unknown,
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'ImageError';
    this.kind = kind;
    this.code = code;
    this.errno = ERRNO[code];
    this.context = context;
  }
}

/** What is asked for, or what an image says, breaks a rule; `hint`: as in the context. */
export function invalid(message: string, hint?: string): ImageError {
  return new ImageError('invalid', 'EINVAL', message, hint === undefined ? {} : { hint });
}

/** A system call failed. The message holds the call, its object and the errno's name. */
export class SysError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  constructor(syscall: string, errno: number, detail = '') {
    super(`${syscall}${detail === '' ? '' : ` ${detail}`}: ${errnoName(errno)}`);
    this.name = 'SysError';
    this.code = errnoName(errno);
    this.errno = errno;
    this.syscall = syscall;
  }
}

/** The whole of an error in one line, its limit included. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const limit = error instanceof ImageError ? error.context.limit : undefined;
  return limit === undefined ? error.message : `${error.message} (${limit})`;
}

/** What programs may want to know of an error; names as `errorFacts` gives them. */
export interface ErrorFacts {
  /** By its name. */
  readonly errno: string;
  /** Where it was, in bytes of the file. */
  readonly file?: string;
  readonly offset?: number;
}

export function errorFacts(error: unknown): ErrorFacts {
  const { path, offset } = error instanceof ImageError ? error.context : {};
  return {
    errno: errorCode(error),
    ...(path !== undefined && { file: path }),
    ...(offset !== undefined && { offset }),
  };
}

/** The errno to answer with for anything that was thrown; EIO where it is a bug of ours. */
export function errnoOf(error: unknown): number {
  if (error instanceof ImageError || error instanceof SysError) return error.errno;
  // Node's own file-system errors carry a negated errno.
  const errno = (error as { errno?: unknown } | null)?.errno;
  return typeof errno === 'number' && errno < 0 ? -errno : ERRNO.EIO;
}

/** The same by its name, for another error of that number. */
export function errorCode(error: unknown): ErrnoName {
  return errnoName(errnoOf(error)) as ErrnoName;
}

/** All that is known of an error that may be a bug of ours: where it was thrown, if it tells. */
export function errorStack(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** Whether the error is expected (an image's, the system's), not a bug of this program. */
export function isExpected(error: unknown): error is Error {
  if (error instanceof ImageError || error instanceof SysError) return true;
  return error instanceof Error && 'syscall' in error && 'errno' in error;
}
