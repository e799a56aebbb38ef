/**
 * Many command lines on both tools: QEMU's qemu-img, several at a time, and ours in this process. Each
 * runs in a folder of its own, in which the same files lie; what it prints, how it ends and the files that
 * it leaves must be the same.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  cpSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { expect } from 'chai';
import { runInProcess } from './in-process.js';
import { normaliseErrors, normaliseInfo, normaliseMap } from './normalise.js';
import type { ToolResult } from './qemu.js';

/** QEMU's tool runs so many times at once. */
const AT_ONCE = 4;
/** Bytes of the largest files that are compared as such. */
const MOST_READ = 64 << 20;
const QCOW2_MAGIC = Buffer.from('QFI\xfb', 'latin1');

/** Words with blanks between them; those in single quotes hold blanks, or nothing. */
function wordsOf(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|\S+/g)].map(([word, quoted]) => quoted ?? word);
}

function linesOf(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

/**
 * Runs each line of `text` on both tools, in copies of the folder `template`; all that differs is told.
 * `scratch`: an empty folder for the copies; none where no line changes anything.
 */
export async function expectSame(text: string, template: string, scratch?: string): Promise<void> {
  const runs = linesOf(text).map((line, index) => {
    const folders = ['qemu', 'ours'].map((side) => {
      if (scratch === undefined) return template;
      const folder = join(scratch, String(index), side);
      mkdirSync(folder, { recursive: true });
      cpSync(template, folder, { recursive: true });
      return folder;
    });
    return { line, words: wordsOf(line), theirs: folders[0]!, ours: folders[1]! };
  });
  const expected = await mapAtOnce(runs, ({ words, theirs }) => runQemuImg(words, theirs));
  const differences: object[] = [];
  for (const [index, { line, words, theirs, ours }] of runs.entries()) {
    const found = normalised(await runInProcess(words, ours));
    const wanted = normalised(expected[index]!);
    if (!isDeepStrictEqual(found, wanted)) differences.push({ line, found, wanted });
    const files = scratch === undefined ? undefined : fileDifference(theirs, ours);
    if (files !== undefined) differences.push({ line, files });
  }
  expect(differences, JSON.stringify(differences, null, 2)).to.have.length(0);
}

/** The results of `run`, in order; several run at once. */
async function mapAtOnce<T, R>(items: readonly T[], run: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const left = [...items.entries()];
  const work = async (): Promise<void> => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) {
      results[next[0]] = await run(next[1]);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return results;
}

function normalised({ status, stdout, stderr }: ToolResult): ToolResult {
  return { status, stdout, stderr: normaliseErrors(stderr) };
}

function runQemuImg(words: readonly string[], cwd: string): Promise<ToolResult> {
  return new Promise((resolve, reject) => {
    const child = spawn('qemu-img', words, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    const texts = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8').on('data', (text: string) => {
        texts[name] += text;
      });
    }
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, ...texts }));
  });
}

/** What differs between the files of two folders; undefined where nothing does. */
function fileDifference(theirs: string, ours: string): object | undefined {
  const [wanted, found] = [theirs, ours].map(filesIn);
  if (!isDeepStrictEqual(found, wanted)) return { found, wanted };
  for (const name of wanted!) {
    const [a, b] = [theirs, ours].map((folder) => contentOf(join(folder, name)));
    if (a!.bytes?.equals(b!.bytes ?? Buffer.alloc(0)) === true) continue;
    const isLarge = a!.bytes === undefined && a!.size === b!.size;
    if (isLarge && !a!.isImage) continue;
    if (!a!.isImage || !b!.isImage) return { name, sizes: [a!.size, b!.size] };
    const facts = [theirs, ours].map((folder) => imageFacts(folder, name));
    if (!isDeepStrictEqual(facts[0], facts[1])) return { name, facts };
  }
  return undefined;
}

/** The bytes of a file; not of a large one. */
function contentOf(path: string): { size: number; bytes?: Buffer; isImage: boolean } {
  const { size } = statSync(path);
  const bytes = size <= MOST_READ ? readFileSync(path) : undefined;
  const start = Buffer.alloc(QCOW2_MAGIC.length);
  const fd = openSync(path, 'r');
  readSync(fd, start, 0, start.length, 0);
  closeSync(fd);
  return { size, isImage: start.equals(QCOW2_MAGIC), ...(bytes !== undefined && { bytes }) };
}

function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => statSync(join(folder, name)).isFile())
    .map((name) => relative('.', name))
    .sort();
}

/** What QEMU makes of an image: all but where its tables lie. */
function imageFacts(cwd: string, name: string): unknown {
  const run = (...words: string[]) => {
    const { status, stdout } = spawnSync('qemu-img', words, { cwd, encoding: 'utf8' });
    return status === 0 ? stdout : null;
  };
  const [info, map] = ['info', 'map'].map((command) => run(command, '--output=json', name));
  return {
    info: info == null ? info : normaliseInfo(info),
    map: map == null ? map : normaliseMap(map),
    check: run('check', '-q', name),
  };
}
