/** The sorted table of qemu-io's commands: it drives running and help. */
import type { IoCommand, PlainCommand } from './command.js';
import { Complaint } from './complaint.js';
import { ALLOC, AIO_FLUSH, FLUSH, INFO, LENGTH, MAP, TRUNCATE } from './map-commands.js';
import { CLOSE, OPEN, REOPEN } from './open-commands.js';
import * as own from './process-commands.js';
import { AIO_READ, READ, READV } from './read-commands.js';
import { AIO_WRITE, DISCARD, WRITE, WRITEV } from './write-commands.js';

const HELP: PlainCommand = {
  name: 'help',
  alias: '?',
  usage: '[command]',
  summary: 'help for one or all commands',
  words: [0, 1],
  run: (session, { operands }) => {
    const [name] = operands;
    if (name === undefined) {
      const lines = IO_COMMANDS.map((command) => `${usageLine(command)}\n`);
      session.print(`${lines.join('')}\nUse 'help commandname' for extended help.\n`);
      return;
    }
    const command = findIoCommand(name);
    if (command === undefined) throw new Complaint(`command ${name} not found`);
    session.print(`${usageLine(command)}\n`);
    if (command.help !== undefined) session.print(`\n${command.help}\n\n`);
  },
};

export const IO_COMMANDS: readonly IoCommand[] = [
  own.ABORT,
  AIO_FLUSH,
  AIO_READ,
  AIO_WRITE,
  ALLOC,
  own.BREAK,
  CLOSE,
  DISCARD,
  FLUSH,
  HELP,
  INFO,
  LENGTH,
  MAP,
  OPEN,
  own.QUIT,
  READ,
  READV,
  own.REMOVE_BREAK,
  REOPEN,
  own.RESUME,
  own.SIGRAISE,
  own.SLEEP,
  TRUNCATE,
  own.WAIT_BREAK,
  WRITE,
  WRITEV,
];

export function findIoCommand(word: string): IoCommand | undefined {
  return IO_COMMANDS.find(({ name, alias }) => name === word || alias === word);
}

/** A command and its words, and what it does. */
export function usageLine({ name, usage, summary }: IoCommand): string {
  return `${name}${usage === undefined ? '' : ` ${usage}`} -- ${summary}`;
}
