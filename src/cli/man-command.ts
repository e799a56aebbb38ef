/** `man`: prints a manual page. */
import type { Command } from './command.js';
import { getopt } from './getopt.js';
import { manualPage, mountHelperPage } from './man-page.js';
import type { Outcome } from './outcome.js';
import { UsageError } from './program.js';

export async function runManCommand(
  words: string[],
  commands: readonly Command[],
): Promise<Outcome> {
  const [page = 'qcow2fs', extra] = getopt(words, []).operands;
  if (extra !== undefined) throw new UsageError(`unexpected '${extra}'`);
  if (page === 'qcow2fs') process.stdout.write(manualPage(commands));
  else if (page === 'mount.qcow2fs') process.stdout.write(mountHelperPage());
  else throw new UsageError(`no page '${page}': there are qcow2fs and mount.qcow2fs`);
  return { status: 0 };
}
