/**
 * `qemu-img check` by the thousand: from shells that are kept, which start it in half the time that
 * this process takes.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { encryptedName, isEncrypted, SECRET } from './image-words.js';

/** Shells at most. */
const MOST = 4;
/** Answers each line with the status; what was printed is in a file. */
const SCRIPT = `while read -r what key path; do
  if [ "$what" = repair ]; then set -- -r all; else set --; fi
  if [ "$key" = secret ]; then
    set -- "$@" ${SECRET.join(' ')} --image-opts "${encryptedName('$path')}"
  else set -- "$@" "$path"; fi
  (cd "\${path%/*}" && qemu-img check "$@") >"$path.log" 2>&1
  echo $?
done`;

export interface CheckResult {
  readonly status: number;
  readonly output: string;
}

class Shell {
  readonly #child: ChildProcess;
  #answer: ((status: number) => void) | null = null;

  constructor() {
    this.#child = spawn('sh', ['-c', SCRIPT], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.stdout!.on('data', (text: Buffer) => this.#answer!(Number(text.toString())));
    this.#keepAlive(false);
  }

  async run(what: 'check' | 'repair', path: string): Promise<CheckResult> {
    this.#keepAlive(true);
    const status = await new Promise<number>((resolve) => {
      this.#answer = resolve;
      const key = isEncrypted(path) ? 'secret' : 'none';
      this.#child.stdin!.write(`${what} ${key} ${path}\n`);
    });
    this.#keepAlive(false);
    const log = `${path}.log`;
    const output = existsSync(log) ? readFileSync(log, 'utf8') : '';
    rmSync(log, { force: true });
    return { status, output };
  }

  /** Only a shell that is asked keeps this process from ending. */
  #keepAlive(wanted: boolean): void {
    for (const one of [this.#child, this.#child.stdin as Socket, this.#child.stdout as Socket]) {
      if (wanted) one.ref();
      else one.unref();
    }
  }
}

const idle: Shell[] = [];
const waiting: ((shell: Shell) => void)[] = [];
let shells = 0;

/** Runs `qemu-img check` on the image, or `qemu-img check -r all`. */
export async function qemuCheck(what: 'check' | 'repair', path: string): Promise<CheckResult> {
  const shell = await take();
  try {
    return await shell.run(what, path);
  } finally {
    const next = waiting.shift();
    if (next === undefined) idle.push(shell);
    else next(shell);
  }
}

function take(): Promise<Shell> | Shell {
  const shell = idle.pop();
  if (shell !== undefined) return shell;
  if (shells === MOST) return new Promise((resolve) => waiting.push(resolve));
  shells++;
  return new Shell();
}
