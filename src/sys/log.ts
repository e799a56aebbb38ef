/**
 * Messages to whoever runs the mount. Every thread opens its own log from the same description, and
 * each message is one write of one line, so that the lines of several threads do not mix.
 */
import { constants, fstatSync, openSync, writeSync } from 'node:fs';
import { libc, syslog } from './libc.js';

export type LogLevel = 'error' | 'warning' | 'info' | 'debug';

/** Where messages go. A file is open already: a daemon changes its directory, and may hide it. */
export type LogTarget = 'stderr' | 'syslog' | { readonly fd: number };

/** `json`: an object a line, for programs. */
export type LogFormat = 'text' | 'json';

/** What programs may want to know beside the message, by names; in JSON alone. */
export type LogFacts = Readonly<Record<string, string | number | boolean>>;

/** Plain data: it can be sent to a worker. Messages above `level` are dropped. */
export interface LogDescription {
  readonly target: LogTarget;
  readonly format: LogFormat;
  readonly level: LogLevel;
}

const PROGRAM = 'qcow2fs';
const STDERR = 2;
const LOG_PID = 1;
const LOG_DAEMON = 3 << 3;

/** The priorities of syslog(3), which order the levels too. */
const PRIORITY: Readonly<Record<LogLevel, number>> = { error: 3, warning: 4, info: 6, debug: 7 };

type Sink = (level: LogLevel, message: string) => void;

let current: Sink = toStderr;
let format: LogFormat = 'text';
let threshold = PRIORITY.warning;

/** Opens a file for `LogTarget`: messages are put behind what is there, for its owner to read. */
export function openLogFile(path: string): number {
  const { O_APPEND, O_CREAT, O_NONBLOCK, O_WRONLY } = constants;
  // A FIFO that nobody reads is refused, not waited for.
  return openSync(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK, 0o600);
}

/** Sends this thread's messages there from now on. */
export function openLog(description: LogDescription): void {
  format = description.format;
  current = sinkOf(description.target, format);
  threshold = PRIORITY[description.level];
}

/** Never throws: a log that cannot be written must not stop the mount. */
export const log = {
  error: (message: string, facts?: LogFacts): void => put('error', message, facts),
  warning: (message: string, facts?: LogFacts): void => put('warning', message, facts),
  info: (message: string, facts?: LogFacts): void => put('info', message, facts),
  debug: (message: string, facts?: LogFacts): void => put('debug', message, facts),
};

function put(level: LogLevel, message: string, facts: LogFacts | undefined): void {
  if (PRIORITY[level] > threshold) return;
  try {
    current(level, format === 'json' ? jsonLine(level, message, facts) : printable(message));
  } catch {
    // A full disk, a closed pipe: there is nobody left to tell.
  }
}

/** JSON escapes what it must; what else steers terminals or ends lines is escaped in the same way. */
function jsonLine(level: LogLevel, message: string, facts: LogFacts | undefined): string {
  const time = new Date().toISOString();
  return printable(JSON.stringify({ time, level, message, pid: process.pid, ...facts }));
}

/**
 * Text with its control characters and line breaks (C0, DEL, C1, U+2028, U+2029) escaped. Names come
 * from images and users: one must neither forge a line nor steer a terminal.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029]/gu, (character) => {
    if (character < ' ') return JSON.stringify(character).slice(1, -1);
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

/** The same line by line, for text whose line breaks are our own: a stack. */
export function printableLines(text: string): string {
  return text.split('\n').map(printable).join('\n');
}

function sinkOf(target: LogTarget, format: LogFormat): Sink {
  if (target === 'syslog') return openSyslog();
  if (target === 'stderr') {
    if (isJournal()) return toJournal;
    return format === 'text' ? toStderr : (_level, line) => void writeSync(STDERR, `${line}\n`);
  }
  const { fd } = target;
  return (level, line) => {
    const head = format === 'text' ? `${new Date().toISOString()} ${level} ` : '';
    writeSync(fd, `${head}${line}\n`);
  };
}

/** Whether stderr goes to systemd's journal: sd-daemon(3) and systemd.exec(5) say how that is told. */
function isJournal(): boolean {
  const { JOURNAL_STREAM } = process.env;
  if (JOURNAL_STREAM === undefined) return false;
  try {
    const { dev, ino } = fstatSync(STDERR);
    return JOURNAL_STREAM === `${dev}:${ino}`;
  } catch {
    return false;
  }
}

/** The journal knows by itself who speaks, and when. */
function toJournal(level: LogLevel, line: string): void {
  writeSync(STDERR, `<${PRIORITY[level]}>${line}\n`);
}

function toStderr(_level: LogLevel, message: string): void {
  writeSync(STDERR, `${PROGRAM}: ${message}\n`);
}

function openSyslog(): Sink {
  // openlog keeps the pointer for ever: the name is copied to where nobody frees it.
  libc.openlog(libc.strdup(PROGRAM), LOG_PID, LOG_DAEMON);
  return (level, message) => syslog(PRIORITY[level], message);
}
