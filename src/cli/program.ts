/** The program in its messages: by what name it was called, and how it says what went wrong. */
import { basename } from 'node:path';
import { describeError, ImageError, isExpected } from '../errors.js';
import { strerror } from '../sys/libc.js';
import { printable, printableLines } from '../sys/log.js';

const NAMES = ['qcow2fs', 'qemu-img', 'qemu-io'] as const;

export type ProgramName = (typeof NAMES)[number];

/** The link by which the executable was called decides what it is. */
export function programName(): ProgramName {
  const called = basename(process.argv[1] ?? '');
  return NAMES.find((name) => name === called) ?? 'qcow2fs';
}

export type HelperCommand = 'mount' | 'umount';

/** What mount(8) or umount(8) wants; undefined where it is not called by a link of theirs. */
export function helperCommand(): HelperCommand | undefined {
  const called = basename(process.argv[1] ?? '');
  return /^(u?mount)\.(?:fuse\.)?qcow2fs$/.exec(called)?.[1] as HelperCommand | undefined;
}

/** The command line is wrong: behind the message the user is told where help is. */
export class UsageError extends Error {}

/** `--help` is among the words, as an option. */
export class HelpWanted extends Error {}

/** A line on standard error; what could steer a terminal is escaped. */
export function reportError(message: string): void {
  process.stderr.write(`${programName()}: ${printableLines(message)}\n`);
}

export function reportWarning(message: string): void {
  reportError(`warning: ${message}`);
}

/**
 * An error in words: qemu-img's where it has some. What is ours alone (limits, who holds a lock)
 * follows in parentheses, but where scripts expect QEMU's tools. The stack, for a bug of ours.
 */
export function problemText(error: unknown): string {
  if (!isExpected(error)) {
    if (!(error instanceof Error)) return printable(String(error));
    return `internal error: ${printableLines(error.stack ?? error.message)}`;
  }
  if (programName() === 'qcow2fs') return printable(describeError(error));
  const hint = error instanceof ImageError ? error.context.hint : undefined;
  return printable(systemWords(error)) + (hint === undefined ? '' : `\n${printableLines(hint)}`);
}

/** A failed system call in the C library's words, as QEMU's tools say it. */
function systemWords(error: Error): string {
  if (error instanceof ImageError) return error.message;
  const errno = (error as { errno?: number }).errno ?? 0;
  return strerror(Math.abs(errno));
}
