/**
 * A whole command line: finds the command, runs it, and says what went wrong. Called by a link named
 * `qemu-img` or `qemu-io`, the program takes their words and speaks as they do.
 */
import { existsSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { ImageError } from '../errors.js';
import { Cancelled } from '../tools/progress.js';
import type { Command } from './command.js';
import { COMMANDS, findCommand } from './commands.js';
import { advised } from './advised.js';
import { nearWord } from './near-word.js';
import type { Outcome } from './outcome.js';
import {
  type HelperCommand,
  HelpWanted,
  helperCommand,
  problemText,
  programName,
  reportError,
  UsageError,
} from './program.js';

// For `main`, which imports nothing else: each import more is files more to be loaded by every start.
export { isLoaded } from '../sys/libc.js';
export { exitNow } from '../sys/process.js';

/** The version of QEMU whose words are spoken: scripts look at it to know what can be asked for. */
const SPOKEN = '7.2.0';

/** What the shell adds to the number of a signal that ended a process. */
const BY_SIGNAL = 128;

/** Throws what `problemStatus` takes. */
export async function run(words: string[]): Promise<Outcome> {
  const name = programName();
  refuseUnreadable(words);
  const helper = helperCommand();
  if (helper !== undefined) return runHelper(helper, words);
  const [first] = words;
  if (first === '--version' || first === '-V') {
    const own = `qcow2fs version ${version()}`;
    process.stdout.write(name === 'qcow2fs' ? `${own}\n` : `${name} version ${SPOKEN} (${own})\n`);
    return { status: 0 };
  }
  if (name === 'qemu-io') return findCommand('io')!.run(words, '');
  if (first === '--help' || first === '-h' || first === 'help') {
    process.stdout.write((await import('./help.js')).helpText());
    return { status: 0 };
  }
  if (name === 'qemu-img') return runCommand(imageCommand(first), words.slice(1));
  const named = findCommand(first);
  if (first !== undefined && named === undefined) refuseMistyped(first);
  return runCommand(named ?? findCommand('mount')!, named === undefined ? words : words.slice(1));
}

/** As mount(8) and umount(8) want it done. */
async function runHelper(command: HelperCommand, given: readonly string[]): Promise<Outcome> {
  const { helperCall } = await import('./mount-helper.js');
  const { words, fake, told } = helperCall(command, given);
  if (fake) {
    (await import('./mount.js')).checkMount(words);
    return { status: 0 };
  }
  // The daemon comes by here, too, when the mount has ended.
  const serving = (await import('./daemon.js')).isDaemon();
  const outcome = await runCommand(findCommand(command)!, words);
  if (outcome.status !== 0 || serving) return outcome;
  process.stdout.write(told);
  if (command === 'mount') (await import('./mount-record.js')).recordMount(words);
  return outcome;
}

/**
 * Node.js takes all words for UTF-8, and puts U+FFFD for other bytes: two names would become one, and the
 * wrong file or snapshot be written over.
 */
function refuseUnreadable(words: readonly string[]): void {
  const doubtful = words.filter((word) => word.includes('\ufffd'));
  if (doubtful.length === 0) return;
  const given = readFileSync('/proc/self/cmdline', 'latin1').split('\0');
  for (const word of doubtful) {
    if (given.includes(Buffer.from(word).toString('latin1'))) continue;
    const message = `'${word}' is not UTF-8: such names cannot be given (rename it, or use a link)`;
    throw new ImageError('invalid', 'EINVAL', message);
  }
}

/** A word that is no file and nearly a command was hardly meant as an image to mount. */
function refuseMistyped(word: string): void {
  if (word.startsWith('-') || existsSync(word)) return;
  const meant = nearWord(word, [...COMMANDS.map(({ name }) => name), 'help']);
  if (meant === undefined) return;
  throw new UsageError(`'${word}' is no command and no file: did you mean '${meant}'?`);
}

/** qemu-img's first word is a command, always. */
function imageCommand(word: string | undefined): Command {
  if (word === undefined) throw new UsageError('Not enough arguments');
  const command = findCommand(word);
  if (command?.image === true) return command;
  if (word.startsWith('-')) throw new UsageError(`unrecognized option '${word}'`);
  throw new UsageError(`Command not found: ${word}`);
}

async function runCommand(command: Command, words: string[]): Promise<Outcome> {
  const asked = asksForHelp(words);
  // Words of qemu-img's commands can be values, as in `-c --help`: they know themselves.
  if (asked && command.image !== true) return help(command);
  try {
    return await command.run(words, command.usage);
  } catch (error) {
    // Who asks for help gets it, whatever else is wrong.
    if (error instanceof HelpWanted || (asked && error instanceof UsageError)) return help(command);
    throw await advised(error);
  }
}

/** Whether `--help` stands before a `--`. */
function asksForHelp(words: readonly string[]): boolean {
  const end = words.indexOf('--');
  const options = end < 0 ? words : words.slice(0, end);
  return options.some((word) => word === '--help' || word === '-h');
}

async function help(command: Command): Promise<Outcome> {
  process.stdout.write((await import('./help.js')).commandHelp(command));
  return { status: 0 };
}

function version(): string {
  const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}

/** Prints what went wrong; answers the status to end with. */
export function problemStatus(error: unknown): number {
  if (error instanceof Cancelled) return BY_SIGNAL + constants.signals[error.signal];
  if (error instanceof UsageError) {
    reportError(error.message);
    process.stderr.write(`Try '${programName()} --help' for more information\n`);
  } else process.stderr.write(`${programName()}: ${problemText(error)}\n`);
  return 1;
}
