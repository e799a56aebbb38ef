/**
 * Giving up root's privileges for good. A thread's user, capabilities and promise of no new privileges are
 * its own: the C library's setuid(2) and the like tell all threads, but prctl(2) does not.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { endianness } from 'node:os';
import { SysError } from '../errors.js';
import { IoBuffer } from './io-buffer.js';
import { fail, libc } from './libc.js';

const PR_SET_NO_NEW_PRIVS = 38;
const F_SETFD = 2;
const STDERR = 2;

/** A user as the system knows him. */
export interface User {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** Bytes that a user's entry takes at most. */
const ENTRY_SIZE = 64 << 10;

/** The user of that name, or else of that number; a number that has no user has the group of the same number. */
export function findUser(nameOrId: string): User | undefined {
  const id = /^[0-9]+$/.test(nameOrId) ? Number(nameOrId) : undefined;
  const named = lookUp('getpwnam', nameOrId);
  if (named !== undefined || id === undefined) return named;
  return lookUp('getpwuid', id) ?? { name: nameOrId, uid: id, gid: id };
}

/** struct passwd, <pwd.h>: 0 name*  8 password*  16 uid  20 gid; the words stand in a buffer of ours. */
function lookUp(call: 'getpwnam' | 'getpwuid', key: string | number): User | undefined {
  const little = endianness() === 'LE';
  const entry = new IoBuffer(64);
  const found = new IoBuffer(8);
  const words = new IoBuffer(ENTRY_SIZE);
  const errno = libc[call](key, entry.address, words.address, ENTRY_SIZE, found.address);
  if (errno !== 0 || found.view.getBigUint64(0) === 0n) return undefined;
  const start = Number(entry.view.getBigUint64(0, little)) - words.address;
  return {
    name: words.bytes.toString('utf8', start, words.bytes.indexOf(0, start)),
    uid: entry.view.getUint32(16, little),
    gid: entry.view.getUint32(20, little),
  };
}

/** Whether no thread of this process, nor what it starts, can get privileges by starting a program. */
export function hasNoNewPrivileges(): boolean {
  return threadStatuses().every((status) => status.get('NoNewPrivs') === '1');
}

/** Forbids new privileges to this thread, and to the threads and programs that it starts. */
export function forbidNewPrivileges(): void {
  if (libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) !== 0) fail('prctl', 'PR_SET_NO_NEW_PRIVS');
}

/** Starts this program again in its own place, by the same words. Throws a SysError. */
export function startAgain(): never {
  // Node has marked them to be closed.
  for (let fd = 0; fd <= STDERR; fd++) libc.fcntl(fd, F_SETFD, 0);
  const words = pointers([process.execPath, ...process.execArgv, ...process.argv.slice(1)]);
  const env = pointers(Object.entries(process.env).map(([name, value]) => `${name}=${value}`));
  libc.execve(process.execPath, words.address, env.address);
  return fail('execve', `'${process.execPath}'`);
}

/** An array of C strings, with a null pointer behind them. */
function pointers(words: readonly string[]): IoBuffer {
  const array = new IoBuffer(8 * (words.length + 1));
  const numbers = new BigUint64Array(array.bytes.buffer, array.bytes.byteOffset, words.length + 1);
  for (const [index, word] of words.entries()) numbers[index] = BigInt(libc.strdup(word));
  numbers[words.length] = 0n;
  return array;
}

/**
 * Makes all threads of this process, which is root's, that user's, with his groups and without capabilities.
 * Threads that are started later are as this one. Throws a SysError where one thread has anything left.
 */
export function becomeUser(user: User): void {
  if (libc.initgroups(user.name, user.gid) !== 0) fail('initgroups', `'${user.name}'`);
  process.setgid!(user.gid);
  process.setuid!(user.uid);
  // Not told by this thread's calls: looked at, thread by thread.
  if (!threadStatuses().every((status) => isPlain(status, user))) {
    throw new SysError('setuid', 0, `'${user.name}': privileges were left`);
  }
}

function isPlain(status: ReadonlyMap<string, string>, { uid, gid }: User): boolean {
  const same = (name: string, id: number): boolean =>
    status
      .get(name)
      ?.split('\t')
      .every((field) => field === String(id)) === true;
  const none = ['CapPrm', 'CapEff', 'CapAmb'].every((name) => /^0*$/.test(status.get(name) ?? ''));
  return same('Uid', uid) && same('Gid', gid) && none && status.get('NoNewPrivs') === '1';
}

/** What the kernel tells of each thread of this process: proc_pid_status(5). */
function threadStatuses(): Map<string, string>[] {
  const folder = '/proc/self/task';
  return readdirSync(folder).flatMap((thread) => {
    let text: string;
    try {
      text = readFileSync(`${folder}/${thread}/status`, 'latin1');
    } catch {
      // It has ended.
      return [];
    }
    const lines = text.split('\n').map((line) => line.split(':\t') as [string, string]);
    return [new Map(lines)];
  });
}
