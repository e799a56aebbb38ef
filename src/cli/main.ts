#!/usr/bin/env node
/** The executable: finds the command, runs it, prints errors, and alone exits the process. */
import { readFileSync } from 'node:fs';
import { exitNow } from '../sys/process.js';
import { findCommand } from './commands.js';
import type { Outcome } from './outcome.js';
import { errorText } from './report.js';
import { optionWords } from './words.js';

const NAME = 'qcow2fs';

async function run(words: string[]): Promise<Outcome> {
  const [first] = words;
  if (first === '--version' || first === '-V') {
    process.stdout.write(`${NAME} version ${version()}\n`);
    return { status: 0 };
  }
  if (first === '--help' || first === '-h' || first === 'help') {
    process.stdout.write((await import('./help.js')).helpText());
    return { status: 0 };
  }
  const named = findCommand(first);
  const command = named ?? findCommand('mount')!;
  const rest = named === undefined ? words : words.slice(1);
  if (optionWords(rest).some((word) => word === '--help' || word === '-h')) {
    process.stdout.write((await import('./help.js')).commandHelp(command));
    return { status: 0 };
  }
  return command.run(rest, command.usage);
}

function version(): string {
  const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}

/** Whoever reads our output may have gone, or its disk may be full. */
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') process.stderr.write(`${NAME}: ${errorText(error)}\n`);
  exitNow(1);
});

try {
  const { status, atOnce } = await run(process.argv.slice(2));
  if (atOnce === true) exitNow(status);
  process.exitCode = status;
} catch (error) {
  process.stderr.write(`${NAME}: ${errorText(error)}\n`);
  // A mount that failed may have left threads that block in the kernel.
  exitNow(1);
}
