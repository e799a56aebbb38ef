/** Module scripts in processes of their own: as root or as an ordinary user. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { listMounts } from '#src/fuse/mountinfo.js';
import { umount } from '#src/sys/mount.js';

export const IS_ROOT = process.geteuid!() === 0;

/** `nobody` on every Linux. */
export const NOBODY = 65534;

export interface ScriptOptions {
  /**
   * Runs as the user nobody, in a mount namespace of its own: whatever it mounts is gone with it.
   * Only root can ask for that.
   */
  readonly asNobody?: boolean;
  /** Runs in the mount namespace of that process. */
  readonly beside?: number | undefined;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/**
 * fusermount3 opens /dev/fuse with the user's rights, and not every machine grants them: a node of
 * our own lies over it, seen in the new namespace only.
 */
const OWN_DEVICE = [
  'set -e',
  'mount -t tmpfs -o mode=755 qcow2fs-test /dev/shm',
  'mknod -m "$DEVICE_MODE" /dev/shm/fuse c 10 229',
  'mount --bind /dev/shm/fuse /dev/fuse',
  'exec "$@"',
].join('\n');

const BECOME_NOBODY = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--'];

/** Imports from `#src/…` are written `SRC/…` in a script. */
function commandOf(script: string, { asNobody = false, beside }: ScriptOptions): string[] {
  const source = new URL('.', import.meta.resolve('#src/errors.js')).href;
  const text = script.replaceAll("'SRC/", `'${source}`);
  const node = [process.execPath, '--input-type=module', '-e', text];
  const command = asNobody ? [...BECOME_NOBODY, ...node] : node;
  if (beside !== undefined) return ['nsenter', `--mount=/proc/${beside}/ns/mnt`, '--', ...command];
  return asNobody ? ['unshare', '--mount', 'sh', '-c', OWN_DEVICE, 'sh', ...command] : command;
}

function spawnOptions({ env = {}, cwd = '/' }: ScriptOptions) {
  return { cwd, env: { ...process.env, DEVICE_MODE: '666', ...env } };
}

/** Runs a script to its end. */
export function runScript(script: string, options: ScriptOptions = {}) {
  const [file, ...args] = commandOf(script, options);
  const { status, stdout, stderr } = spawnSync(file!, args, {
    ...spawnOptions(options),
    encoding: 'utf8',
    timeout: 30_000,
    killSignal: 'SIGKILL',
  });
  return { status, stdout, stderr };
}

/** Starts a script and waits for its first word on stdout, which is answered too. */
export async function startScript(
  script: string,
  options: ScriptOptions = {},
): Promise<{ child: ChildProcess; word: string }> {
  const [file, ...args] = commandOf(script, options);
  const child = spawn(file!, args, {
    ...spawnOptions(options),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const word = await new Promise<string>((done, fail) => {
    child.stdout!.once('data', (chunk: Buffer) => done(chunk.toString()));
    child.once('error', fail);
    child.once('exit', (code) => fail(new Error(`the script ended with ${code}`)));
  });
  return { child, word };
}

/** Why mounts cannot be made here; undefined where they can. */
export function whyNoMounts(asNobody: boolean): string | undefined {
  if (!existsSync('/dev/fuse')) return 'no /dev/fuse';
  if (!IS_ROOT) return 'not root';
  if (!asNobody) return undefined;
  for (const tool of ['fusermount3', 'unshare', 'nsenter', 'setpriv']) {
    if (spawnSync(tool, ['-V']).error !== undefined) return `no ${tool}`;
  }
  const { status, stderr } = runScript("import 'SRC/errors.js';", { asNobody });
  return status === 0 ? undefined : `nobody cannot run the build: ${stderr.trim()}`;
}

/** Unmounts everything at or below a directory, whoever serves it. */
export function unmountAll(directory: string): void {
  const below = listMounts().filter(
    ({ target }) => target === directory || target.startsWith(`${directory}/`),
  );
  for (const { target } of below.reverse()) {
    try {
      umount(target, 2);
    } catch {
      // Gone with its parent.
    }
  }
}
