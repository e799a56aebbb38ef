/**
 * Giving up root's privileges for good. A thread's user, capabilities and promise of no new privileges are
 * its own: the C library's setuid(2) and the like tell all threads, but prctl(2) does not.
 */
import { readdirSync, readFileSync } from 'node:fs';
import koffi from 'koffi';
import { SysError } from '../errors.js';
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

/** The beginning of struct passwd, <pwd.h>. */
const PASSWD = koffi.struct({ name: 'str', password: 'str', uid: 'uint32_t', gid: 'uint32_t' });
const lib = koffi.load(null);
const getpwnam = lib.func('getpwnam', koffi.pointer(PASSWD), ['str']);
const initgroups = lib.func('int initgroups(str user, uint32_t group)');
const getpwuid = lib.func('getpwuid', koffi.pointer(PASSWD), ['uint32_t']);

/** The user of that name, or else of that number; a number that has no user has the group of the same number. */
export function findUser(nameOrId: string): User | undefined {
  const id = /^[0-9]+$/.test(nameOrId) ? Number(nameOrId) : undefined;
  const entry: unknown = getpwnam(nameOrId) ?? (id === undefined ? null : getpwuid(id));
  if (entry !== null) return koffi.decode(entry, PASSWD) as User;
  return id === undefined ? undefined : { name: nameOrId, uid: id, gid: id };
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
  const words = [process.execPath, ...process.execArgv, ...process.argv.slice(1), null];
  const env = Object.entries(process.env).map(([name, value]) => `${name}=${value}`);
  lib.func('int execve(str path, const char **argv, const char **envp)')(words[0], words, [
    ...env,
    null,
  ]);
  return fail('execve', `'${process.execPath}'`);
}

/**
 * Makes all threads of this process, which is root's, that user's, with his groups and without capabilities.
 * Threads that are started later are as this one. Throws a SysError where one thread has anything left.
 */
export function becomeUser(user: User): void {
  if (initgroups(user.name, user.gid) !== 0) fail('initgroups', `'${user.name}'`);
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
