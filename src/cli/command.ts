/** What the table of commands says of each. */
import type { CommandOption, Takes } from './command-options.js';
import type { Outcome } from './outcome.js';

export interface Command {
  readonly name: string;
  readonly usage: string;
  readonly summary: string;
  readonly options: readonly CommandOption[];
  /** What its operands can be; files where nothing is said. */
  readonly operands?: Takes;
  /** Exit statuses beside 0, for success, and 1, for a failure. */
  readonly statuses?: Readonly<Record<number, string>>;
  /** It works on images, as qemu-img's command of that name. */
  readonly image?: true;
  /** Runs with the words behind the command's name; `usage` is this record's, for errors. */
  run(words: string[], usage: string): Promise<Outcome>;
}
