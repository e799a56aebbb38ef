/**
 * Going into the background. Node cannot fork, so the parent starts the same command again in a
 * session of its own and waits for one word from it: the shell's prompt comes back only when the
 * mount answers, or with the reason why there is none.
 *
 * The word comes as one line of JSON over descriptor 3, whose number stands in the environment. Before it,
 * the child is told there what was asked for on the terminal, which it has not.
 * Until then the child's messages on stderr are the parent's, and its directory too; after it the
 * child holds nothing of the terminal, so that `x=$(qcow2fs a b)` ends.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import type { Duplex, Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { printableLines } from '../sys/log.js';
import { replaceDescriptor } from '../sys/process.js';

const MARKER = 'QCOW2FS_DAEMON_FD';
const CHANNEL = 3;

/** Bytes that are read at once of what the child is told. */
const START_SIZE = 4096;

/** How long the parent waits for the end of a stderr that something else holds open too. */
const DRAIN_MS = 1000;

const FORWARDED: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP'];

const NO_INSPECTOR_SIGNAL = '--disable-sigusr1';

/** What the child says. */
type Word = { readonly ready: true } | { readonly message: string; readonly code: number };

/** What the child is told at its start: a line, too. */
interface Start {
  /** In base64. */
  readonly passphrases: readonly string[];
}

/** The child's side. Each of the two can be said once; what comes later is not heard. */
export interface DaemonChannel {
  /** What the parent, who has the terminal, was told there. */
  readonly passphrases: readonly Uint8Array[];
  /** The mount answers: leaves the directory and the terminal, and lets the parent end with 0. */
  ready(): void;
  /** There will be no mount: the parent prints the message and ends with `code`. */
  failed(message: string, code: number): void;
}

/**
 * In the parent: starts `argv` (the script and its arguments: `process.argv.slice(1)`) as a daemon,
 * and answers the status to exit with. Prints what went wrong itself.
 */
export async function spawnDaemon(
  argv: readonly string[],
  passphrases: readonly Uint8Array[] = [],
): Promise<number> {
  const child = spawn(process.execPath, [...nodeOptions(), ...argv], {
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    env: { ...process.env, [MARKER]: String(CHANNEL) },
  });
  const channel = child.stdio[CHANNEL] as Duplex;
  const start: Start = {
    passphrases: passphrases.map((one) => Buffer.from(one).toString('base64')),
  };
  // Who is gone before it hears anything has said why.
  channel.on('error', () => {});
  channel.write(`${JSON.stringify(start)}\n`);
  const ended = endOf(child);
  const drained = forward(child.stderr!);
  // A daemon that hangs while it starts must still end by ^C, though it is in another session.
  const pass = (signal: NodeJS.Signals): void => void child.kill(signal);
  for (const signal of FORWARDED) process.on(signal, pass);
  try {
    const word = parseWord(await textOf(channel));
    if (word !== undefined && 'ready' in word) {
      await within(drained, DRAIN_MS);
      return 0;
    }
    // Only when the child has gone are the images released.
    const { status, reason } = await ended;
    await within(drained, DRAIN_MS);
    const message = word?.message ?? `the daemon ended before the mount was ready: ${reason}`;
    process.stderr.write(`qcow2fs: ${printableLines(message)}\n`);
    return (word?.code ?? status) || 1;
  } finally {
    for (const signal of FORWARDED) process.off(signal, pass);
    child.stderr!.destroy();
    channel.destroy();
    child.unref();
  }
}

/** Newer versions of Node.js can be told that SIGUSR1 is not theirs, from the first moment on. */
function nodeOptions(): string[] {
  const known = process.allowedNodeEnvironmentFlags.has(NO_INSPECTOR_SIGNAL);
  return known ? [...process.execArgv, NO_INSPECTOR_SIGNAL] : process.execArgv;
}

interface End {
  readonly status: number;
  readonly reason: string;
}

async function endOf(child: ChildProcess): Promise<End> {
  try {
    const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
    if (signal === null) return { status: code ?? 1, reason: `exit status ${code}` };
    return { status: 128 + osConstants.signals[signal], reason: `killed by ${signal}` };
  } catch (error) {
    return { status: 1, reason: error instanceof Error ? error.message : String(error) };
  }
}

/** Copies the stream to our stderr; ends with it, however it ends. */
function forward(stream: Readable): Promise<void> {
  stream.on('data', (chunk: Buffer) => void process.stderr.write(chunk));
  return finished(stream, { writable: false }).catch(() => {});
}

async function textOf(stream: Readable): Promise<string> {
  let text = '';
  stream.setEncoding('utf8');
  stream.on('data', (chunk: string) => {
    text += chunk;
  });
  await finished(stream, { writable: false }).catch(() => {});
  return text;
}

function parseWord(text: string): Word | undefined {
  try {
    return JSON.parse(text) as Word;
  } catch {
    return undefined;
  }
}

async function within(promise: Promise<void>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((done) => {
    timer = setTimeout(done, timeoutMs);
  });
  await Promise.race([promise, late]);
  clearTimeout(timer);
}

/** Whether `spawnDaemon` started this process, and `daemonChannel` was not asked yet. */
export function isDaemon(): boolean {
  return process.env[MARKER] !== undefined;
}

/** In the child: the way to its parent. Undefined in a process that `spawnDaemon` did not start. */
export function daemonChannel(): DaemonChannel | undefined {
  const fd = Number(process.env[MARKER] ?? Number.NaN);
  // Not for the programs that we start.
  delete process.env[MARKER];
  if (fd !== CHANNEL || !isPipe(fd)) return undefined;
  let open = true;
  const say = (word: Word): void => {
    if (!open) return;
    open = false;
    try {
      writeSync(fd, JSON.stringify(word));
    } catch {
      // The parent has been killed: the mount stays, and nobody is there to hear of it.
    }
    closeSync(fd);
  };
  return {
    passphrases: readStart(fd).passphrases.map((one) => Buffer.from(one, 'base64')),
    ready: () => {
      if (!open) return;
      leaveTerminal();
      say({ ready: true });
    },
    failed: (message, code) => say({ message, code }),
  };
}

/** Waits for the line; nothing is known where the parent has gone. */
function readStart(fd: number): Start {
  let text = '';
  const buffer = Buffer.alloc(START_SIZE);
  while (!text.endsWith('\n')) {
    const n = readSync(fd, buffer);
    if (n === 0) return { passphrases: [] };
    text += buffer.toString('latin1', 0, n);
  }
  return JSON.parse(text) as Start;
}

/** Node makes its pipes of sockets. */
function isPipe(fd: number): boolean {
  try {
    const stat = fstatSync(fd);
    return stat.isSocket() || stat.isFIFO();
  } catch {
    return false;
  }
}

function leaveTerminal(): void {
  process.chdir('/');
  const nothing = openSync('/dev/null', constants.O_RDWR);
  replaceDescriptor(1, nothing);
  replaceDescriptor(2, nothing);
  closeSync(nothing);
}
