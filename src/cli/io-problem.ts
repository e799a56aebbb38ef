/** Errors of reading and writing in words. */
import { describeError, errnoOf } from '../errors.js';
import { strerror } from '../sys/libc.js';
import { printable } from '../sys/log.js';
import { programName } from './program.js';

/** Why something could not be done, in full; the errno's words alone where scripts expect those. */
export function ioProblem(errno: number, text: string): string {
  return programName() === 'qcow2fs' ? printable(text) : strerror(errno);
}

/** The same of an error. */
export function ioProblemOf(error: unknown): string {
  return ioProblem(errnoOf(error), describeError(error));
}
