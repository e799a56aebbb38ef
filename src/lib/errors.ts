/** The library's errors, as much of them as is promised. All have `code`, and so have Node's own, of the system. */
import * as own from '../errors.js';

/** Something is wrong with an image, or with what is asked of it. */
export interface ImageError extends Error {
  /**
   * `invalid` (breaks the format, or a rule), `unsupported` (valid, but not known here), `corrupt` (contradicts itself),
   * `policy` (forbidden by options, or by a lock), `missing`.
   */
  readonly kind: 'invalid' | 'unsupported' | 'corrupt' | 'policy' | 'missing';
  /** `EINVAL`, `ENOENT` …: what a system call would say. */
  readonly code: string;
  /** Its number, positive. */
  readonly errno: number;
}

/** A system call failed. */
export interface SysError extends Error {
  readonly code: string;
  /** Its number, positive. */
  readonly errno: number;
  readonly syscall: string;
}

/** For `instanceof`. */
export const ImageError: abstract new () => ImageError = own.ImageError as never;
/** For `instanceof`. */
export const SysError: abstract new () => SysError = own.SysError as never;
