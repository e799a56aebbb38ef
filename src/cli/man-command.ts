/** `man`: prints the manual page. */
import type { Command } from './command.js';
import { getopt } from './getopt.js';
import { manualPage } from './man-page.js';
import type { Outcome } from './outcome.js';
import { UsageError } from './program.js';

export async function runManCommand(
  words: string[],
  commands: readonly Command[],
): Promise<Outcome> {
  const [extra] = getopt(words, []).operands;
  if (extra !== undefined) throw new UsageError(`unexpected '${extra}'`);
  process.stdout.write(manualPage(commands));
  return { status: 0 };
}
