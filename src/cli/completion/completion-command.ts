/** `completion`: prints a shell's script. */
import type { Command } from '../command.js';
import { getopt } from '../getopt.js';
import type { Outcome } from '../outcome.js';
import { UsageError } from '../program.js';
import { bashCompletion } from './bash.js';
import { fishCompletion } from './fish.js';
import { zshCompletion } from './zsh.js';

const SHELLS = new Map([
  ['bash', bashCompletion],
  ['fish', fishCompletion],
  ['zsh', zshCompletion],
]);

export async function runCompletion(
  words: string[],
  commands: readonly Command[],
): Promise<Outcome> {
  const [shell, extra] = getopt(words, []).operands;
  const script = SHELLS.get(shell ?? '');
  if (script === undefined || extra !== undefined) {
    throw new UsageError(`Expecting one shell: ${[...SHELLS.keys()].join(', ')}`);
  }
  process.stdout.write(script(commands));
  return { status: 0 };
}
