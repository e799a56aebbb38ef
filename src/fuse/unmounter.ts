/**
 * Who unmounts for a daemon that has given up root's privileges: a process that has kept them, and can do
 * nothing else. It is asked through a socket, word by word, and detaches the mount by itself when
 * the daemon is gone: no dead mount is left, however that ended.
 */
import { spawn } from 'node:child_process';
import { closeSync, readSync, writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ERRNO, errnoOf, SysError } from '../errors.js';
import { socketPair } from '../sys/mount.js';
import type { OwnMount } from './own-mount.js';

const LONGEST_WORD = 64;
/** Newer versions of Node.js open no inspector at SIGUSR1 with it. */
const NO_INSPECTOR = '--disable-sigusr1';

/** Starts it, and waits until it listens. Throws a SysError. */
export function startUnmounter({ target, device }: OwnMount): OwnMount['unmount'] {
  // Without it nobody knows later whether it is that mount.
  if (device === undefined) throw new SysError('mount', ERRNO.ENOENT, `'${target}' is not shown`);
  const [ours, theirs] = socketPair();
  const module = fileURLToPath(new URL('../fuse/unmounter-main.js', import.meta.url));
  const known = process.allowedNodeEnvironmentFlags.has(NO_INSPECTOR);
  const words = [module, target, JSON.stringify(device)];
  const child = spawn(process.execPath, [...(known ? [NO_INSPECTOR] : []), ...words], {
    cwd: '/',
    env: {},
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', theirs],
  });
  child.on('error', () => {});
  child.unref();
  closeSync(theirs);
  hear(ours, target);
  return (lazy) => {
    tell(ours, target, lazy ? 'detach' : 'unmount');
    return hear(ours, target);
  };
}

function tell(socket: number, target: string, word: string): void {
  try {
    writeSync(socket, word);
  } catch (error) {
    throw new SysError('umount', errnoOf(error), `'${target}': nobody is there to do it`);
  }
}

/** Waits for its answer: an errno, 0, or -1 where the mount is not ours any more. */
function hear(socket: number, target: string): boolean {
  const word = readWord(socket);
  if (word === '')
    throw new SysError('umount', ERRNO.EPERM, `'${target}': nobody is there to do it`);
  const errno = Number(word);
  if (errno > 0) throw new SysError('umount', errno, `'${target}'`);
  return errno === 0;
}

/** Empty where the other side is gone. */
function readWord(socket: number): string {
  const buffer = Buffer.alloc(LONGEST_WORD);
  return buffer.toString('latin1', 0, readSync(socket, buffer));
}
