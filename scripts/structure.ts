/**
 * The structure check: imports point downward, in no circle, and reach every file; files and
 * functions keep to the house's sizes; koffi, Atomics and the process's exit stay where they belong.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname ?? dirname(new URL(import.meta.url).pathname), '../..');
const SOURCE = join(ROOT, 'src');
const MAX_LINES = 600;

/** From the top down; a folder imports itself, those behind it, and the leaves. */
const LEVELS = ['cli', 'fuse', 'mount', 'lib', 'tools', 'image', 'storage', 'sys'];
const LEAVES = ['codec', 'errors.ts', 'shared'];
/** Where everything starts: the executable, the worker threads, the library. */
const ENTRIES = ['cli/main.ts', 'fuse/unmounter-main.ts', 'fuse/worker-main.ts', 'index.ts'];
/** Used by tests alone. */
const FOR_TESTS = ['storage/memory.ts'];

/** Words that belong to one folder or file; calls, but for where a function is defined. */
const OWNED: readonly { word: RegExp; owner: string; what: string }[] = [
  { word: /from 'koffi'|@koromix/, owner: 'sys/', what: 'koffi' },
  { word: /\bAtomics\./, owner: 'shared/', what: 'Atomics' },
  { word: /\bprocess\.(exit\(|exitCode)/, owner: 'cli/main.ts', what: 'exiting the process' },
  { word: /(?<!function )\bexitNow\(/, owner: 'cli/main.ts', what: 'exiting the process' },
];

interface SourceFile {
  readonly name: string;
  readonly text: string;
  readonly imports: readonly string[];
}

function listFiles(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? listFiles(path) : path.endsWith('.ts') ? [path] : [];
  });
}

function readSource(path: string): SourceFile {
  const text = readFileSync(path, 'utf8');
  const pattern = /(?:from|import)\s*\(?\s*'(\.[^']*)'|new URL\('(\.[^']*\.js)'/g;
  const imports = [...text.matchAll(pattern)].map((match) =>
    relative(SOURCE, join(dirname(path), (match[1] ?? match[2])!)).replace(/\.js$/, '.ts'),
  );
  return { name: relative(SOURCE, path), text, imports };
}

function folderOf(name: string): string {
  return name.split('/')[0]!;
}

function importProblems(file: SourceFile): string[] {
  const from = folderOf(file.name);
  return file.imports.flatMap((target) => {
    const to = folderOf(target);
    if (from === to || LEAVES.includes(to) || from === 'index.ts') return [];
    const down = LEVELS.indexOf(from) >= 0 && LEVELS.indexOf(to) > LEVELS.indexOf(from);
    return down ? [] : [`${file.name} imports ${target}: not downward`];
  });
}

function ownershipProblems(file: SourceFile): string[] {
  return OWNED.flatMap(({ word, owner, what }) =>
    word.test(file.text) && !file.name.startsWith(owner)
      ? [`${file.name}: ${what} belongs to ${owner}`]
      : [],
  );
}

function sizeProblems(file: SourceFile): string[] {
  const lines = file.text.split('\n').length - 1;
  return lines > MAX_LINES ? [`${file.name}: ${lines} lines, at most ${MAX_LINES}`] : [];
}

function cycleProblems(files: ReadonlyMap<string, SourceFile>): string[] {
  const done = new Set<string>();
  const problems: string[] = [];
  const visit = (name: string, path: string[]): void => {
    if (path.includes(name)) {
      problems.push(`circle: ${[...path.slice(path.indexOf(name)), name].join(' -> ')}`);
      return;
    }
    if (done.has(name)) return;
    done.add(name);
    for (const target of files.get(name)?.imports ?? []) visit(target, [...path, name]);
  };
  for (const name of files.keys()) visit(name, []);
  return problems;
}

function deadProblems(files: ReadonlyMap<string, SourceFile>): string[] {
  const reached = new Set<string>();
  const visit = (name: string): void => {
    if (reached.has(name)) return;
    reached.add(name);
    for (const target of files.get(name)?.imports ?? []) visit(target);
  };
  for (const entry of [...ENTRIES, ...FOR_TESTS]) visit(entry);
  return [...files.keys()].filter((name) => !reached.has(name)).map((name) => `${name}: dead file`);
}

const files = new Map(
  listFiles(SOURCE)
    .map(readSource)
    .map((file) => [file.name, file]),
);
const problems = [
  ...[...files.values()].flatMap((file) => [
    ...importProblems(file),
    ...ownershipProblems(file),
    ...sizeProblems(file),
  ]),
  ...cycleProblems(files),
  ...deadProblems(files),
];
for (const problem of problems) process.stderr.write(`structure: ${problem}\n`);
if (problems.length > 0) process.exitCode = 1;
else process.stderr.write(`structure: ${files.size} files, all in place\n`);
