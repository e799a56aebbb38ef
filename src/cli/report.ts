/** Errors in words for a terminal: names in them come from images, and cannot steer it. */
import { describeError, isExpected } from '../errors.js';
import { printable, printableLines } from '../sys/log.js';

/** One line for what an image, the system or a user does wrong; the stack for a bug of ours. */
export function errorText(error: unknown): string {
  if (isExpected(error) || !(error instanceof Error)) return printable(describeError(error));
  return `internal error: ${printableLines(error.stack ?? error.message)}`;
}
