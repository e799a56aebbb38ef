/** Commands that run to their end: each round runs every one by both tools, one after the other. */
import { spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type CommandWorkload, QEMU_IMG } from './command-suites.js';
import { type Image, type KeptKind, MIB, warmImage } from './images.js';
import { OURS } from './peers.js';
import { touchMemory } from './memory.js';
import { run } from './process.js';
import type { Sample } from './report.js';

/** A tool that takes qemu-img's words. */
export interface CommandTool {
  readonly name: string;
  readonly command: readonly string[];
  version(): Promise<string>;
}

const main = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url));

/** How often the memory of a running command is looked at, in ms. */
const MEMORY_INTERVAL = 10;

export const commandTools: readonly CommandTool[] = [
  tool(OURS, [process.execPath, main]),
  tool(QEMU_IMG, ['qemu-img']),
];

function tool(name: string, command: readonly [string, ...string[]]): CommandTool {
  const [program, ...words] = command;
  const version = async () => (await run(program, [...words, '--version'])).split('\n')[0]!;
  return { name, command, version };
}

export interface CommandRounds {
  readonly workloads: readonly CommandWorkload[];
  readonly tools: readonly CommandTool[];
  readonly images: ReadonlyMap<KeptKind, Image>;
  /** A folder for what commands make. */
  readonly scratch: string;
  readonly rounds: number;
  readonly signal: AbortSignal;
  log(line: string): void;
}

/** Each round starts with the other tool: none is always the one that comes first. */
export async function runCommandRounds(input: CommandRounds): Promise<Sample[]> {
  const { workloads, tools, images, scratch, rounds, signal, log } = input;
  const samples: Sample[] = [];
  const target = join(scratch, 'target');
  for (const image of images.values()) {
    await warmImage(image, false);
    if (!image.isSparse) await warmImage(image, true);
  }
  for (let round = 0; round < rounds; round++) {
    log(`round ${round + 1} of ${rounds}`);
    for (const workload of workloads) {
      const image = images.get(workload.image)!;
      const words = workload.words(image, target);
      for (let n = 0; n < tools.length; n++) {
        const { name, command } = tools[(n + round) % tools.length]!;
        await clear(target);
        if (!image.isSparse) await touchMemory(image.size, signal);
        const { seconds, bytes } = await measureCommand([...command, ...words], signal);
        const { secondsMetric, memoryMetric } = workload;
        log(`  ${name} ${secondsMetric} ${seconds.toFixed(3)} s`);
        samples.push({ metric: secondsMetric, peer: name, round, value: seconds });
        if (memoryMetric === undefined) continue;
        samples.push({ metric: memoryMetric, peer: name, round, value: bytes / MIB });
      }
    }
  }
  rmSync(target, { force: true });
  return samples;
}

/**
 * Removes what the last command made. What was written is on the disk first, so that no command waits for
 * another one's bytes.
 */
async function clear(target: string): Promise<void> {
  await run('sync', []);
  rmSync(target, { force: true });
}

/** Runs a command to its end; `bytes`: the most that it had in memory. Throws where it fails. */
function measureCommand(
  words: readonly string[],
  signal: AbortSignal,
): Promise<{ seconds: number; bytes: number }> {
  const [program, ...rest] = words;
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const child = spawn(program!, rest, { stdio: 'ignore', signal });
    let bytes = 0;
    const timer = setInterval(() => {
      bytes = Math.max(bytes, peakBytes(child.pid));
    }, MEMORY_INTERVAL);
    const end = (): void => clearInterval(timer);
    child.on('error', (error) => {
      end();
      reject(error);
    });
    child.on('exit', (status) => {
      const seconds = (performance.now() - start) / 1000;
      end();
      if (status === 0) resolve({ seconds, bytes });
      else reject(new Error(`${words.join(' ')}: exit status ${status}`));
    });
  });
}

/** The most that the process has had in memory so far; 0 where it has ended. */
function peakBytes(pid: number | undefined): number {
  try {
    const line = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return Number(line?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}
