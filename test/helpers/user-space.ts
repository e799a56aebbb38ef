/**
 * A mount namespace with a /dev/fuse and an /etc/fuse.conf of its own: fusermount3 opens the device
 * with the user's rights, and not every machine grants them. Whatever is mounted in it is gone with
 * its last process.
 */
import { readlinkSync, writeFileSync } from 'node:fs';
import { processIds } from '#src/sys/process.js';
import { CLI, type Outcome, type Running, type Sandbox, until } from './mount.js';

// fusermount3 refuses users without a name: these two are in the passwd file of every Linux.
/** nobody */
export const ALICE = 65534;
/** daemon */
export const BOB = 1;
export const ROOT = 0;

/** What is needed of the machine. */
export const TOOLS = ['fusermount3', 'unshare', 'nsenter', 'setpriv'];

export interface SpaceOptions {
  /** The text of /etc/fuse.conf. */
  readonly configuration?: string;
  /** Further commands that prepare it, as root; /dev/shm is the namespace's own. */
  readonly prepare?: string;
}

export class UserSpace {
  readonly #sandbox: Sandbox;
  readonly #holder: Running;

  private constructor(sandbox: Sandbox, holder: Running) {
    this.#sandbox = sandbox;
    this.#holder = holder;
  }

  static async make(
    sandbox: Sandbox,
    { configuration = '', prepare = '' }: SpaceOptions = {},
  ): Promise<UserSpace> {
    const file = sandbox.path('fuse.conf');
    writeFileSync(file, configuration);
    const script = [
      'set -e',
      'mount -t tmpfs -o mode=755 qcow2fs-test /dev/shm',
      'mknod -m 666 /dev/shm/fuse c 10 229',
      'mount --bind /dev/shm/fuse /dev/fuse',
      'mount --bind "$0" /etc/fuse.conf',
      prepare,
      'echo made',
      'exec sleep 1000',
    ].join('\n');
    const holder = sandbox.start('unshare', ['--mount', 'sh', '-c', script, file]);
    await until(() => holder.stdout !== '' || holder.child.exitCode !== null, 'the namespace');
    if (holder.stdout === '') throw new Error(`no namespace: ${holder.stderr}`);
    return new UserSpace(sandbox, holder);
  }

  run(user: number, command: string, ...words: string[]): Promise<Outcome> {
    return this.#sandbox.run('nsenter', this.#words(user, command, words));
  }

  start(user: number, command: string, ...words: string[]): Running {
    return this.#sandbox.start('nsenter', this.#words(user, command, words));
  }

  cli(user: number, ...words: string[]): Promise<Outcome> {
    return this.run(user, process.execPath, CLI, ...words);
  }

  #words(user: number, command: string, words: readonly string[]): string[] {
    const become = ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--clear-groups', '--'];
    return [`--mount=/proc/${this.#holder.pid}/ns/mnt`, '--', ...become, command, ...words];
  }

  /** Ends every process in the namespace. */
  close(): void {
    const own = namespaceOf(this.#holder.pid);
    if (own === undefined || own === namespaceOf(process.pid)) return;
    for (const pid of processIds()) {
      if (namespaceOf(pid) === own) process.kill(pid, 'SIGKILL');
    }
  }
}

function namespaceOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`);
  } catch {
    return undefined;
  }
}
