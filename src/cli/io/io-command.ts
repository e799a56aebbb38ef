/** `qcow2fs io`, and the executable called by a link named `qemu-io`. */
import { invalid, isExpected } from '../../errors.js';
import { KeyRing } from '../../image/crypto/key-ring.js';
import type { ImageSpec } from '../../image/spec.js';
import { type CommandOption, OPTIONS } from '../command-options.js';
import type { Arguments } from '../getopt.js';
import { optionLines } from '../option-lines.js';
import { parseImageName, parseImageOptions } from '../image-words.js';
import { takeObjects } from '../objects.js';
import type { Outcome } from '../outcome.js';
import { problemText, programName, reportError, reportWarning } from '../program.js';
import { takeWords } from './arguments.js';
import { Complaint, WrongWords } from './complaint.js';
import { openFlags, openInto, warnOfShortForms } from './opening.js';
import { runInput, runLine } from './run.js';
import { Session } from './session.js';

const HELP: CommandOption = { long: 'help', short: 'h', help: 'this text' };

function printHelp(): void {
  const lines = [
    `Usage: ${programName()} [OPTIONS]... [-c STRING]... [file]`,
    'Runs commands on a disk: those of -c in their order, or the lines of standard input.',
    '',
    ...optionLines([...OPTIONS.io, HELP]),
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}

/** Exits with 1 where one of the commands failed. */
export async function runIoCommand(words: string[]): Promise<Outcome> {
  const args = takeOptions(words);
  if (args === undefined) return { status: 1 };
  if (args.has('help')) {
    printHelp();
    return { status: 0 };
  }
  const session = new Session(args.has('image-opts'));
  try {
    const opened = await openOperand(session, args);
    const ok = opened && (await runAll(session, args.all('cmd')));
    session.close();
    return { status: ok ? 0 : 1 };
  } finally {
    session.image?.disk.abandon();
    session.output.flush();
  }
}

/** Undefined where the words are wrong, which is told then. */
function takeOptions(words: string[]): Arguments | undefined {
  const name = programName();
  try {
    const args = takeWords(name, words, [...OPTIONS.io, HELP]);
    if (args.operands.length <= 1) return args;
  } catch (error) {
    if (!(error instanceof WrongWords)) throw error;
    process.stderr.write(`${error.message}\n`);
  }
  printHelp();
  return undefined;
}

/** Opens the image that the words name; false where it cannot be, which is told then. */
async function openOperand(session: Session, args: Arguments): Promise<boolean> {
  try {
    for (const event of args.all('trace')) warnOfTrace(event);
    const flags = openFlags(args);
    const format = args.last('format');
    if (session.imageOpts && format !== undefined) {
      throw invalid('--image-opts and -f are mutually exclusive');
    }
    session.keys = new KeyRing({ secrets: takeObjects(args.all('object')) });
    const [word] = args.operands;
    if (word === undefined) return true;
    const parse = (): ImageSpec => {
      if (session.imageOpts) {
        warnOfShortForms(word);
        return parseImageOptions(word);
      }
      return { ...parseImageName(word), ...(format !== undefined && { format }) };
    };
    const name = session.imageOpts ? undefined : word;
    await openInto(session, { name, words: word }, parse, flags);
    return true;
  } catch (error) {
    if (error instanceof Complaint) return false;
    if (!isExpected(error)) throw error;
    reportError(problemText(error));
    return false;
  }
}

function warnOfTrace(event: string): void {
  const [name] = event.split(',');
  reportWarning(`trace event '${name}' does not exist`);
}

async function runAll(session: Session, commands: readonly string[]): Promise<boolean> {
  if (commands.length === 0) return runInput(session);
  let ok = true;
  for (const command of commands) {
    if (session.done) break;
    ok = (await runLine(session, command)) && ok;
  }
  return ok;
}
