/**
 * One command line on both tools, each in a folder of its own with the same images: QEMU's qemu-img, and
 * ours called by a link of that name.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { qemuImg, type ToolResult, tryQemuImg } from './qemu.js';
import type { TempFolder } from './temp.js';

const MAIN = fileURLToPath(import.meta.resolve('#src/cli/main.js'));

export type Side = 'qemu' | 'ours';

/** What a run left; `disks` are the images that must hold the same and be in order. */
export interface SameOutcome {
  readonly disks?: readonly string[];
  /** Files that the tools treat differently by intention: their facts are not compared. */
  readonly withoutInfo?: boolean;
}

export class BothTools {
  readonly #temp: TempFolder;

  constructor(temp: TempFolder) {
    this.#temp = temp;
  }

  /** The folder of one tool. */
  folder(side: Side): string {
    const path = this.#temp.at(side);
    if (!existsSync(path)) mkdirSync(path);
    return path;
  }

  /** A file in it. */
  at(side: Side, name: string): string {
    return join(this.folder(side), name);
  }

  /** Makes the same things in both folders. */
  make(build: (folder: string) => void): void {
    build(this.folder('qemu'));
    build(this.folder('ours'));
  }

  run(side: Side, words: readonly string[]): ToolResult {
    return this.#run(side, 'qemu-img', words);
  }

  /** The same of qemu-io. */
  runIo(side: Side, words: readonly string[]): ToolResult {
    return this.#run(side, 'qemu-io', words);
  }

  #run(side: Side, tool: string, words: readonly string[]): ToolResult {
    const program = side === 'qemu' ? tool : this.#link(tool);
    const options = { cwd: this.folder(side), encoding: 'utf8', timeout: 60_000 } as const;
    const { status, stdout, stderr } = spawnSync(program, words, options);
    return { status, stdout, stderr };
  }

  /** Runs commands of our qemu-io on an image; throws where it fails. */
  io(path: string, ...commands: string[]): void {
    const words = [...commands.flatMap((command) => ['-c', command]), path];
    const { status, stdout, stderr } = this.runIo('ours', words);
    if (status !== 0) throw new Error(`qemu-io ${words.join(' ')}: ${stdout}${stderr}`);
  }

  /** Runs it on both: what they print and how they end must be the same, and what they leave. */
  same(
    words: readonly string[],
    { disks = [], withoutInfo = false }: SameOutcome = {},
  ): ToolResult {
    const theirs = this.run('qemu', words);
    const ours = this.run('ours', words);
    expect(ours, `qemu-img ${words.join(' ')}`).to.deep.equal(theirs);
    for (const name of disks) this.sameDisk(name, withoutInfo);
    return theirs;
  }

  /** The image must hold the same in both folders, and ours be in order. */
  sameDisk(name: string, withoutInfo = false): void {
    const [theirs, ours] = [this.at('qemu', name), this.at('ours', name)];
    const compared = tryQemuImg('compare', ...format(name), theirs, ours);
    // A data file's own end is no part of the disk.
    const said = `${compared.stdout}${compared.stderr}`.replace(/^Warning: Image size.*\n/, '');
    expect(said, `compare ${name}`).to.equal('Images are identical.\n');
    if (name.endsWith('.raw')) return;
    const check = tryQemuImg('check', ours);
    expect(check.status, `check ${name}: ${check.stdout}${check.stderr}`).to.equal(0);
    if (!withoutInfo) expect(this.#info('ours', name)).to.deep.equal(this.#info('qemu', name));
  }

  #info(side: Side, name: string): unknown {
    const text = qemuImg('info', '--output=json', this.at(side, name));
    const facts = JSON.parse(text.replaceAll(this.folder(side), '')) as Record<string, unknown>;
    // How much of the host's disk it takes is the file system's matter.
    delete facts['actual-size'];
    for (const snapshot of (facts.snapshots ?? []) as Record<string, unknown>[]) {
      delete snapshot['date-sec'];
      delete snapshot['date-nsec'];
    }
    return facts;
  }

  #link(tool: string): string {
    const path = this.#temp.at(tool);
    if (!existsSync(path)) symlinkSync(MAIN, path);
    return path;
  }
}

function format(name: string): string[] {
  return name.endsWith('.raw') ? ['-f', 'raw', '-F', 'raw'] : [];
}
