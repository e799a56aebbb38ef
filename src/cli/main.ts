#!/usr/bin/env node
/** The executable: finds the command, runs it, prints errors, and alone exits the process. */
import { readFileSync } from 'node:fs';
import { describeError, isExpected } from '../errors.js';
import { findCommand } from './commands.js';

const NAME = 'qcow2fs';

async function run(words: string[]): Promise<number> {
  const [first] = words;
  if (first === '--version' || first === '-V') {
    process.stdout.write(`${NAME} version ${version()}\n`);
    return 0;
  }
  if (first === '--help' || first === '-h' || first === 'help') {
    process.stdout.write((await import('./help.js')).helpText());
    return 0;
  }
  const command = findCommand(first);
  if (command !== undefined) return command.run(words.slice(1));
  return findCommand('mount')!.run(words);
}

function version(): string {
  const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}

function report(error: unknown): void {
  const words =
    isExpected(error) || !(error instanceof Error)
      ? describeError(error)
      : `internal error: ${error.stack}`;
  process.stderr.write(`${NAME}: ${words}\n`);
}

try {
  process.exitCode = await run(process.argv.slice(2));
} catch (error) {
  report(error);
  process.exitCode = 1;
}
