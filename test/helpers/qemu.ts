/** QEMU's own tools, the oracle of the tests. A failure shows the command and what it said. */
import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { imageWords } from './image-words.js';

/** Milliseconds after which a tool is taken to hang. */
const TIMEOUT_MS = 60_000;

export interface ToolResult {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Bytes of output. */
const MOST_OUTPUT = 64 << 20;

function run(tool: string, words: readonly string[]): ToolResult {
  const result = spawnSync(tool, words, {
    encoding: 'utf8',
    timeout: TIMEOUT_MS,
    maxBuffer: MOST_OUTPUT,
  });
  if (result.error !== undefined) {
    throw new Error(`${tool} (package qemu-utils) cannot be run: ${result.error.message}`);
  }
  return result;
}

/** QEMU times its key derivation for LUKS by CPU time, in ticks, and gives up where a tick is missing. */
const UNLUCKY = 'Unable to get accurate CPU usage';
const LUCK_TRIES = 50;

function runWithLuck(tool: string, words: readonly string[]): ToolResult {
  let result = run(tool, words);
  for (let tries = 1; result.stderr.includes(UNLUCKY) && tries < LUCK_TRIES; tries += 1) {
    result = run(tool, words);
  }
  return result;
}

function mustRun(tool: string, words: readonly string[]): string {
  const { status, stdout, stderr } = runWithLuck(tool, words);
  // qemu-io exits with 0 though a command failed, and says so in its output.
  const failed = tool === 'qemu-io' && /failed|error/i.test(stdout + stderr);
  if (status !== 0 || failed) {
    throw new Error(`${tool} ${words.join(' ')}: exit status ${status}\n${stdout}${stderr}`);
  }
  return stdout;
}

/** Runs qemu-img and answers what it printed. Throws where it fails. */
export function qemuImg(...words: string[]): string {
  return mustRun('qemu-img', words);
}

/** Runs qemu-img, whatever comes of it. */
export function tryQemuImg(...words: string[]): ToolResult {
  return run('qemu-img', words);
}

/** Runs qemu-io, whatever comes of it. */
export function tryQemuIo(...words: string[]): ToolResult {
  return run('qemu-io', words);
}

/** Runs commands of qemu-io on the image at `path`. Throws where one of them fails. */
export function qemuIo(path: string, ...commands: string[]): string {
  const words = commands.flatMap((command) => ['-c', command]);
  return mustRun('qemu-io', [...words, ...imageWords(path)]);
}

/** The image's disk as QEMU reads it, or a snapshot's. */
export function qemuRead(path: string, snapshot?: string): Buffer {
  const target = `${path}.as-raw`;
  const which = snapshot === undefined ? [] : ['-l', snapshot];
  qemuImg('convert', '-O', 'raw', ...which, ...imageWords(path), target);
  try {
    return readFileSync(target);
  } finally {
    rmSync(target, { force: true });
  }
}
