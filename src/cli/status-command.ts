/** `status`: what the mounts of this machine do. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { MountStatus } from '../mount/status.js';
import { OPTIONS } from './command-options.js';
import { type Arguments, getopt } from './getopt.js';
import { outputFormat } from './image-options.js';
import type { Outcome } from './outcome.js';
import { UsageError } from './program.js';
import { askMount, ownMount, ownMounts } from './status.js';
import { ratesOf } from './status-rates.js';
import { type Shown, statusObject, statusText } from './status-words.js';

const SECONDS = 2;
/** The cursor to the upper left, and nothing from there on. */
const CLEAR = '\x1b[H\x1b[J';

type Before = ReadonlyMap<string, MountStatus>;

/** Exits with 1 where a mount cannot be reached. */
export async function runStatusCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS.status);
  const [target, extra] = args.operands;
  if (extra !== undefined) throw new UsageError('Expecting one mount point at most');
  const isJson = outputFormat(args) === 'json';
  const interval = watchInterval(args);
  let isRead = true;
  process.stdout.once('error', () => {
    isRead = false;
  });
  let before: Before = new Map();
  let isWhole = true;
  do {
    const shown = await ask(target, before);
    before = new Map(shown.flatMap(({ told }) => entryOf(told.mount.target, told.status)));
    isWhole = shown.every(({ rates }) => rates !== null);
    const mounts = shown.map(statusObject);
    if (!isJson) process.stdout.write(head(interval) + statusText(shown));
    else if (interval === null) process.stdout.write(`${JSON.stringify({ mounts }, null, 4)}\n`);
    else process.stdout.write(`${JSON.stringify({ time: new Date().toISOString(), mounts })}\n`);
    if (interval !== null) await sleep(interval * 1000);
  } while (interval !== null && isRead);
  // A mount that does not answer still holds a thread.
  return { status: isWhole ? 0 : 1, atOnce: !isWhole };
}

function entryOf(target: string, status: MountStatus | null): [string, MountStatus][] {
  return status === null ? [] : [[target, status]];
}

/** Between two looks: in place on a terminal, else a line. */
function head(interval: number | null): string {
  if (interval === null) return '';
  const time = new Date().toLocaleTimeString('sv');
  return `${process.stdout.isTTY === true ? CLEAR : ''}--- ${time}, every ${interval} s\n`;
}

/** Seconds; null where one look is enough. */
function watchInterval(args: Arguments): number | null {
  const word = args.last('watch');
  if (word === undefined) return null;
  const seconds = word === '' ? SECONDS : /^\d+(\.\d+)?$/.test(word) ? Number(word) : 0;
  if (seconds > 0 && seconds <= 86_400) return seconds;
  throw new UsageError(`--watch takes seconds, up to 86400, not '${word}'`);
}

async function ask(target: string | undefined, before: Before): Promise<Shown[]> {
  const mounts = target === undefined ? ownMounts() : [ownMount(target)];
  const told = await Promise.all(mounts.map(askMount));
  return told.map((one) => ({
    told: one,
    rates: one.status === null ? null : ratesOf(one.status, before.get(one.mount.target)),
  }));
}
