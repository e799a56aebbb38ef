/** Runs lines of qemu-io's language, one after the other: one that fails does not end it. */
import { createInterface } from 'node:readline';
import { isExpected } from '../../errors.js';
import type { Arguments } from '../getopt.js';
import { problemText, reportError } from '../program.js';
import { takeWords } from './arguments.js';
import type { IoCommand } from './command.js';
import { Complaint, PlainError, WrongWords } from './complaint.js';
import type { Session } from './session.js';
import { findIoCommand, usageLine } from './table.js';

const PROMPT = 'qemu-io> ';

/** False where the command failed, which is told then. */
export async function runLine(session: Session, line: string): Promise<boolean> {
  const [word, ...words] = line.split(' ').filter((part) => part !== '');
  if (word === undefined) return true;
  const command = findIoCommand(word);
  try {
    if (command === undefined) throw new PlainError(`command "${word}" not found`);
    await runCommand(session, command, word, words);
    return true;
  } catch (error) {
    tellFailure(session, command, error);
    return false;
  }
}

async function runCommand(
  session: Session,
  command: IoCommand,
  word: string,
  words: string[],
): Promise<void> {
  const { image } = session;
  if ('onImage' in command && image === null) {
    throw new PlainError("no file open, try 'help open'");
  }
  checkCount(command, word, words.length);
  if ('run' in command) return command.run(session, argumentsOf(command, words));
  if (command.writes === true && !image!.writable) {
    reportError('Block node is read-only');
    throw new Complaint();
  }
  return command.onImage(session, argumentsOf(command, words), image!);
}

function checkCount({ words: [least, most] }: IoCommand, word: string, count: number): void {
  if (count >= least && count <= most) return;
  const expected =
    most === Number.POSITIVE_INFINITY
      ? `at least ${least} arguments`
      : least === most
        ? `${least} arguments`
        : `between ${least} and ${most} arguments`;
  throw new PlainError(`bad argument count ${count} to ${word}, expected ${expected}`);
}

function argumentsOf(command: IoCommand, words: string[]): Arguments {
  if (command.options !== undefined) return takeWords(command.name, words, command.options);
  const operands = words;
  return {
    operands,
    given: [],
    has: () => false,
    knows: () => false,
    last: () => undefined,
    all: () => [],
  };
}

function tellFailure(session: Session, command: IoCommand | undefined, error: unknown): void {
  if (error instanceof Complaint) {
    if (error.message !== '') session.print(`${error.message}\n`);
  } else if (error instanceof PlainError) process.stderr.write(`${error.message}\n`);
  else if (error instanceof WrongWords) {
    if (error.message !== '') process.stderr.write(`${error.message}\n`);
    session.print(`${usageLine(command!)}\n`);
  } else if (isExpected(error)) reportError(problemText(error));
  else throw error;
}

/** Runs the lines of standard input, each after a prompt. */
export async function runInput(session: Session): Promise<boolean> {
  const terminal = process.stdin.isTTY === true && process.stdout.isTTY === true;
  const output = terminal ? { output: process.stdout, prompt: PROMPT } : {};
  const lines = createInterface({ input: process.stdin, terminal, ...output });
  let ok = true;
  const prompt = (): void => {
    if (!terminal) session.print(PROMPT);
    session.output.flush();
    if (terminal) lines.prompt();
  };
  prompt();
  for await (const line of lines) {
    ok = (await runLine(session, line)) && ok;
    session.settle();
    if (session.done) break;
    prompt();
  }
  lines.close();
  return ok;
}
