/**
 * Processes and what the kernel says of them: running a command to its end, starting a daemon,
 * and, through /proc, who holds an image open and how much memory that takes.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** How much of a daemon's stderr is kept for the message, in characters. */
const STDERR_LIMIT = 4000;

export interface CommandOptions {
  /** Text written to the command's standard input. */
  input?: string;
  signal?: AbortSignal;
}

/** The line that holds the reason of a failure: one of an uncaught error, or else the last. */
export function reasonIn(text: string): string {
  const lines = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  return lines.find((line) => /^(\w*Error\b|fatal:)/.test(line)) ?? lines.at(-1) ?? '';
}

/**
 * Runs a command to its end and returns its standard output.
 * Throws with the reason from its standard error where the status is not 0.
 */
export function run(
  command: string,
  args: string[],
  options: CommandOptions = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const { signal } = options;
    const child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(signal ? { signal } : {}),
    });
    const stdout: string[] = [];
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => stdout.push(text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-STDERR_LIMIT);
    });
    // A command that failed early does not read its input: the status says so, not EPIPE.
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
    child.on('error', reject);
    child.on('close', (code, killedBy) => {
      if (code === 0) resolve(stdout.join(''));
      else
        reject(new Error(`${command}: ${reasonIn(stderr) || `exit status ${code ?? killedBy}`}`));
    });
  });
}

/** Whether a command of this name is in PATH. */
export async function isInstalled(command: string): Promise<boolean> {
  return run('sh', ['-c', 'command -v "$1"', 'sh', command]).then(
    () => true,
    () => false,
  );
}

/** A daemon's first process: some stay in the foreground, others fork and end. */
export interface Daemon {
  pid: number;
  /** The exit status once ended (-1 for a signal), undefined while it runs. */
  status(): number | undefined;
  stderr(): string;
}

/** Starts a command in a session of its own, so that Ctrl-C reaches it only through us. */
export function startDaemon(command: string, args: string[]): Daemon {
  const child: ChildProcess = spawn(command, args, {
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
  });
  let stderr = '';
  let status: number | undefined;
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-STDERR_LIMIT);
  });
  child.on('error', (error) => {
    stderr += error.message;
    status = -1;
  });
  child.on('exit', (code) => {
    status = code ?? -1;
  });
  // A process that forked keeps the pipe open for its life: it must not keep this one alive.
  child.unref();
  return { pid: child.pid ?? 0, status: () => status, stderr: () => stderr };
}

/** The processes, other than this one, that have `path` open. */
export function holdersOf(path: string): number[] {
  const target = realpathSync(path);
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readdirSync(`/proc/${pid}/fd`).some((fd) => {
          try {
            return readlinkSync(`/proc/${pid}/fd/${fd}`) === target;
          } catch {
            return false; // closed since it was listed
          }
        });
      } catch {
        return false; // ended since it was listed, or not ours to see
      }
    })
    .map(Number);
}

/** Whether the process exists and is not a zombie. */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Resident memory (VmRSS) of the processes together, in bytes. */
export function residentBytes(pids: number[]): number {
  return pids.reduce((sum, pid) => {
    try {
      const line = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
      return sum + Number(line?.[1] ?? 0) * 1024;
    } catch {
      return sum;
    }
  }, 0);
}

/** Polls until `condition` holds or the time is over, and returns whether it held. */
export async function waitFor(condition: () => boolean, timeoutMs: number): Promise<boolean> {
  const end = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > end) return false;
    await sleep(5);
  }
  return true;
}
