/**
 * Mounts for tests. Images are mounted through the real command, and whatever a test leaves behind
 * (mounts, loop devices, processes, files) is gone after it, whether it passed or failed.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { listMounts, type Mount, serversOf } from '#src/fuse/mountinfo.js';
import { processStart } from '#src/sys/process.js';

export const CLI = fileURLToPath(import.meta.resolve('#src/cli/main.js'));

/** Milliseconds after which a command is taken to hang, and killed. */
const HANG_MS = 50_000;
/** Milliseconds in which a daemon whose mount is gone ends by itself. */
const GRACE_MS = 5000;

export interface Outcome {
  /** Null where it was killed. */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** User and group id to run as, without other groups. */
  readonly user?: number | undefined;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

export interface MountOptions extends RunOptions {
  /** Words of the command besides the image and the mount point. */
  readonly options?: readonly string[];
  /** Made as a folder in the sandbox where it is not given. */
  readonly target?: string;
}

/** A process that runs on until it is told, or the sandbox is cleaned. */
export class Running {
  readonly child: ChildProcess;
  stdout = '';
  stderr = '';
  readonly #ended: Promise<Outcome>;

  constructor(child: ChildProcess) {
    this.child = child;
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    this.#ended = new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (status) => {
        resolve({ status, stdout: this.stdout, stderr: this.stderr });
      });
    });
    // Who waits sees it; nobody has to.
    this.#ended.catch(() => {});
  }

  get pid(): number {
    return this.child.pid!;
  }

  ended(): Promise<Outcome> {
    return this.#ended;
  }

  /** The whole group of the process, what it started included. */
  kill(signal: NodeJS.Signals): void {
    if (this.child.pid === undefined) return;
    try {
      process.kill(-this.child.pid, signal);
    } catch {
      // It has ended.
    }
  }
}

/** How a mount speaks with the kernel. */
export type Transport = 'kernel' | 'fuse-native';

export class Sandbox {
  readonly directory: string;
  /** What mounting needs besides its own words. */
  readonly transport: readonly string[];
  readonly #running = new Set<Running>();
  #folders = 0;

  constructor(transport: Transport = 'kernel') {
    this.transport = transport === 'kernel' ? [] : [`--transport=${transport}`];
    this.directory = mkdtempSync(join(tmpdir(), 'qcow2fs-mount-'));
    // Ordinary users mount in it, too.
    chmodSync(this.directory, 0o755);
    open.add(this);
  }

  path(...names: string[]): string {
    return join(this.directory, ...names);
  }

  folder(name = `mnt${this.#folders++}`): string {
    const path = this.path(name);
    mkdirSync(path, { recursive: true });
    return path;
  }

  /** Starts a process; it is killed with the sandbox at the latest. */
  start(command: string, words: readonly string[], options: RunOptions = {}): Running {
    const { user, cwd = this.directory, env } = options;
    const child = spawn(command, words, {
      cwd,
      detached: true,
      env: { ...process.env, LC_ALL: 'C', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(user === undefined ? {} : { uid: user, gid: user }),
    });
    const running = new Running(child);
    this.#running.add(running);
    return running;
  }

  /** Runs a command to its end. */
  async run(command: string, words: readonly string[], options?: RunOptions): Promise<Outcome> {
    const running = this.start(command, words, options);
    const timer = setTimeout(() => running.kill('SIGKILL'), HANG_MS);
    try {
      return await running.ended();
    } finally {
      clearTimeout(timer);
      this.#running.delete(running);
    }
  }

  /** Runs a command that must succeed; answers what it printed. */
  async must(command: string, words: readonly string[], options?: RunOptions): Promise<string> {
    const { status, stdout, stderr } = await this.run(command, words, options);
    if (status === 0) return stdout;
    throw new Error(`${command} ${words.join(' ')}: status ${status}: ${stdout}${stderr}`);
  }

  /** A script of bash; `$0`, `$1` … are `words`. A failure in a pipe counts. */
  script(text: string, words: readonly string[] = [], options?: RunOptions): Promise<Outcome> {
    return this.run('bash', ['-o', 'pipefail', '-c', text, ...words], options);
  }

  cli(words: readonly string[], options?: RunOptions): Promise<Outcome> {
    return this.run(process.execPath, [CLI, ...words], options);
  }

  startCli(words: readonly string[], options?: RunOptions): Running {
    return this.start(process.execPath, [CLI, ...words], options);
  }

  /** Mounts and answers the mount point. */
  async mount(image: string, { options = [], target, ...rest }: MountOptions = {}) {
    const where = target ?? this.folder();
    await this.must(process.execPath, [CLI, image, where, ...options, ...this.transport], rest);
    return where;
  }

  /**
   * Unmounts, and waits for the daemon. Tries it once more where the mount is in use: other tests that make
   * mount namespaces at this moment may hold it.
   */
  async unmount(target: string, options?: RunOptions): Promise<void> {
    const { status, stderr } = await this.cli(['umount', target], options);
    if (status === 0) return;
    if (!stderr.includes('(in use)')) throw new Error(`umount: status ${status}: ${stderr}`);
    await new Promise((done) => setTimeout(done, 1000));
    await this.must(process.execPath, [CLI, 'umount', target], options);
  }

  /** Mounts of whatever type in the sandbox, the latest last. */
  mounts(): Mount[] {
    return listMounts().filter(({ target }) => target.startsWith(`${this.directory}/`));
  }

  /** Loop devices over files of the sandbox. */
  loops(): string[] {
    return readdirSync('/sys/block').filter((name) => {
      if (!name.startsWith('loop')) return false;
      try {
        const file = `/sys/block/${name}/loop/backing_file`;
        return readFileSync(file, 'utf8').startsWith(`${this.directory}/`);
      } catch {
        return false;
      }
    });
  }

  /** Ends and removes everything. Blocks: it works at the end of the process as well. */
  clean(): void {
    open.delete(this);
    for (const running of this.#running) running.kill('SIGKILL');
    const servers = this.mounts()
      .filter(({ type }) => type === 'fuse.qcow2fs')
      .flatMap(({ minor }) => serversOf(minor))
      .map((pid) => ({ pid, start: processStart(pid) }));
    for (const { target } of this.mounts().reverse()) spawnSync('umount', ['-l', target]);
    for (const name of this.loops()) spawnSync('losetup', ['-d', `/dev/${name}`]);
    const end = Date.now() + GRACE_MS;
    const left = () => servers.filter(({ pid, start }) => processStart(pid) === start);
    while (left().length > 0 && Date.now() < end) pause(10);
    for (const { pid } of left()) process.kill(pid, 'SIGKILL');
    const [mounted] = this.mounts();
    if (mounted !== undefined) throw new Error(`'${mounted.target}' cannot be unmounted`);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

const open = new Set<Sandbox>();

process.once('exit', () => {
  for (const sandbox of open) sandbox.clean();
});

/** A sandbox for each test of the suite, or one for all of them; answers how to reach it. */
export function useSandbox(scope: 'test' | 'suite' = 'test', transport?: Transport): () => Sandbox {
  let sandbox: Sandbox | undefined;
  const make = (): void => {
    sandbox = new Sandbox(transport);
  };
  const clean = (): void => {
    sandbox?.clean();
    sandbox = undefined;
  };
  if (scope === 'test') {
    beforeEach(make);
    afterEach(clean);
  } else {
    before(make);
    after(clean);
  }
  return () => sandbox!;
}

/** Skips all tests of the suite, with the reason, where `missing` tells one. */
export function skipSuite(missing: () => string | null): void {
  before(function () {
    const reason = missing();
    if (reason === null) return;
    process.stdout.write(`    skipped: ${reason}\n`);
    this.skip();
  });
}

/** Why nothing can be mounted here, or null. */
export function noMounts(): string | null {
  if (process.geteuid!() !== 0) return 'these tests mount as root';
  return lacking('qemu-img');
}

/** Why a program cannot be used, or null. */
export function lacking(...programs: string[]): string | null {
  const missing = programs.filter((name) => {
    return spawnSync('sh', ['-c', `command -v ${name}`]).status !== 0;
  });
  return missing.length === 0 ? null : `not installed: ${missing.join(', ')}`;
}

/** Why ordinary users cannot run the build, or null. */
export function unreadableBuild(): string | null {
  const words = ['--reuid=65534', '--clear-groups', '--', process.execPath, CLI, '--version'];
  const { status } = spawnSync('setpriv', words);
  return status === 0 ? null : 'ordinary users cannot run the build here';
}

/** Asks until it is true; for what another process does in its own time. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const end = Date.now() + HANG_MS;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`never happened: ${what}`);
    await new Promise((done) => setTimeout(done, 10));
  }
}

function pause(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}
