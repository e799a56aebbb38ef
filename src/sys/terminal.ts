/** Asking on the terminal for what nobody shall see there. */
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { ImageError, isExpected } from '../errors.js';
import { IoBuffer } from './io-buffer.js';
import { fail, libc } from './libc.js';

/** struct termios: its size, and where the flags of input lines and the least count of a read lie. */
const TERMIOS_SIZE = 60;
const LOCAL_FLAGS_AT = 12;
const MIN_AT = 17 + 6;
const TIME_AT = 17 + 5;
const ISIG = 0o1;
const ICANON = 0o2;
const ECHO = 0o10;
const TCSAFLUSH = 2;

const KEY = {
  CTRL_C: 3,
  CTRL_D: 4,
  BACKSPACE: 8,
  NEWLINE: 10,
  RETURN: 13,
  CTRL_U: 21,
  DELETE: 127,
};

/**
 * Writes the prompt to this process's terminal and reads a line from it without echo. Null where it has
 * none. Throws a SysError, and an ImageError (EINTR) where the user ends it with Ctrl-C.
 */
export function askOnTerminal(prompt: string): Buffer | null {
  const fd = openTerminal();
  if (fd === null) return null;
  try {
    return silently(fd, () => {
      writeSync(fd, prompt);
      try {
        return readLine(fd);
      } finally {
        writeSync(fd, '\n');
      }
    });
  } finally {
    closeSync(fd);
  }
}

/** Whether there is somebody to ask. */
export function hasTerminal(): boolean {
  const fd = openTerminal();
  if (fd !== null) closeSync(fd);
  return fd !== null;
}

function openTerminal(): number | null {
  try {
    return openSync('/dev/tty', constants.O_RDWR | constants.O_NOCTTY);
  } catch (error) {
    if (!isExpected(error)) throw error;
    return null;
  }
}

/** Keys come one by one, not shown, and none is a signal: the terminal is always set back. */
function silently<T>(fd: number, body: () => T): T {
  const saved = new IoBuffer(TERMIOS_SIZE);
  if (libc.tcgetattr(fd, saved.address) < 0) fail('tcgetattr');
  const silent = new IoBuffer(TERMIOS_SIZE);
  saved.bytes.copy(silent.bytes);
  const flags = silent.bytes.readUInt32LE(LOCAL_FLAGS_AT) & ~(ISIG | ICANON | ECHO);
  silent.bytes.writeUInt32LE(flags >>> 0, LOCAL_FLAGS_AT);
  silent.bytes[MIN_AT] = 1;
  silent.bytes[TIME_AT] = 0;
  if (libc.tcsetattr(fd, TCSAFLUSH, silent.address) < 0) fail('tcsetattr');
  try {
    return body();
  } finally {
    libc.tcsetattr(fd, TCSAFLUSH, saved.address);
  }
}

function readLine(fd: number): Buffer {
  const line: number[] = [];
  const byte = Buffer.alloc(1);
  while (readSync(fd, byte) === 1) {
    const [key] = byte as unknown as [number];
    if (key === KEY.NEWLINE || key === KEY.RETURN || key === KEY.CTRL_D) break;
    if (key === KEY.CTRL_C) throw new ImageError('policy', 'EINTR', 'interrupted');
    if (key === KEY.CTRL_U) line.length = 0;
    else if (key === KEY.BACKSPACE || key === KEY.DELETE) deleteLast(line);
    else line.push(key);
  }
  return Buffer.from(line);
}

/** A character of UTF-8 can be several bytes. */
function deleteLast(line: number[]): void {
  while (line.length > 0 && (line.pop()! & 0xc0) === 0x80);
}
