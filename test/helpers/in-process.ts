/** Our executable, called as qemu-img, without the time that a process takes to start. */
import { findCommand } from '#src/cli/commands.js';
import { problemText, reportError, UsageError } from '#src/cli/program.js';
import type { ToolResult } from './qemu.js';

/** Runs one command line in the folder `cwd`; one at a time, for the folder is the whole process's. */
export async function runInProcess(words: readonly string[], cwd: string): Promise<ToolResult> {
  const [command, ...rest] = words;
  const texts = { stdout: '', stderr: '' };
  const saved = { cwd: process.cwd(), name: process.argv[1]! };
  const streams = { stdout: process.stdout.write, stderr: process.stderr.write };
  for (const name of ['stdout', 'stderr'] as const) {
    process[name].write = ((text: string) => {
      texts[name] += text;
      return true;
    }) as typeof process.stdout.write;
  }
  process.argv[1] = 'qemu-img';
  process.chdir(cwd);
  try {
    const { status } = await findCommand(command)!.run(rest, '');
    return { status, ...texts };
  } catch (error) {
    if (error instanceof UsageError) {
      reportError(error.message);
      process.stderr.write("Try 'qemu-img --help' for more information\n");
    } else process.stderr.write(`qemu-img: ${problemText(error)}\n`);
    return { status: 1, ...texts };
  } finally {
    process.chdir(saved.cwd);
    process.argv[1] = saved.name;
    process.stdout.write = streams.stdout;
    process.stderr.write = streams.stderr;
  }
}
