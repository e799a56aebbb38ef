/**
 * One command line on both tools, each in a folder of its own with the same images: QEMU's qemu-io, and
 * ours called by a link of that name.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { normaliseIo, normaliseMap } from './normalise.js';
import type { TempFolder } from './temp.js';

const MAIN = fileURLToPath(import.meta.resolve('#src/cli/main.js'));

export interface IoRun {
  /** Words before the commands. */
  readonly words?: readonly string[];
  /** Each becomes a `-c`. */
  readonly commands?: readonly string[];
  readonly input?: string;
  /** Nothing is written: only what is printed is compared. */
  readonly printsOnly?: boolean;
}

export interface IoResult {
  readonly status: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

type Side = 'qemu' | 'ours';

export class BothIo {
  readonly #temp: TempFolder;
  /** Folders of their own for each run. */
  #runs = 0;

  constructor(temp: TempFolder) {
    this.#temp = temp;
  }

  /**
   * Makes images in both folders, runs the command line there, and compares what is printed and what is
   * left. Answers what QEMU's tool said.
   */
  same(make: (folder: string) => void, run: IoRun): IoResult {
    this.#runs++;
    const [theirs, ours] = (['qemu', 'ours'] as const).map((side) => {
      const folder = this.#folder(side);
      make(folder);
      return this.#run(side, folder, run);
    });
    expect(ours, [...(run.words ?? []), ...(run.commands ?? [])].join(' | ')).to.deep.equal(theirs);
    if (run.printsOnly !== true) this.#sameFiles();
    return theirs!;
  }

  #folder(side: Side): string {
    const path = this.#temp.at(`${side}-${this.#runs}`);
    if (!existsSync(path)) mkdirSync(path);
    return path;
  }

  #run(side: Side, cwd: string, { words = [], commands = [], input = '' }: IoRun): IoResult {
    const tool = side === 'qemu' ? 'qemu-io' : this.#link();
    const args = [...words, ...commands.flatMap((command) => ['-c', command])];
    const result = spawnSync(tool, args, { cwd, input, encoding: 'utf8', timeout: 60_000 });
    const { status, signal } = result;
    const [stdout, stderr] = [normaliseIo(result.stdout), normaliseIo(result.stderr)];
    return { status, signal, stdout, stderr };
  }

  #sameFiles(): void {
    const [theirs, ours] = [this.#folder('qemu'), this.#folder('ours')];
    expect(readdirSync(ours)).to.deep.equal(readdirSync(theirs));
    for (const name of readdirSync(theirs)) {
      const paths = [join(theirs, name), join(ours, name)] as const;
      if (name.endsWith('.qcow2')) sameImage(...paths);
      else if (name.endsWith('.raw')) {
        expect(readFileSync(paths[1]).equals(readFileSync(paths[0])), name).to.equal(true);
      }
    }
  }

  #link(): string {
    const path = this.#temp.at('qemu-io');
    if (!existsSync(path)) symlinkSync(MAIN, path);
    return path;
  }
}

/** The same disk, with the same map, and in as good an order. */
function sameImage(theirs: string, ours: string): void {
  expect(factsOf(ours), ours).to.deep.equal(factsOf(theirs));
  expect(contentOf(ours).equals(contentOf(theirs)), `${ours}: what it reads`).to.equal(true);
}

function factsOf(path: string) {
  // A data file is found from where QEMU is started.
  const cwd = dirname(path);
  const map = spawnSync('qemu-img', ['map', '-U', '--output=json', path], { cwd });
  const check = spawnSync('qemu-img', ['check', '-U', path], { cwd });
  const shown = map.status === 0 ? normaliseMap(String(map.stdout)) : String(map.stderr);
  return { map: shown, check: check.status, problems: String(check.stderr) };
}

function contentOf(path: string): Buffer {
  const target = `${path}.content`;
  spawnSync('qemu-img', ['convert', '-U', '-O', 'raw', path, target], { cwd: dirname(path) });
  return readFileSync(target);
}
