/** Suites of commands that run to their end, as this project's and as qemu-img's, on kept images. */
import type { Image, KeptKind } from './images.js';
import type { Target } from './workloads.js';

/** One command line for both tools. */
export interface CommandWorkload {
  readonly name: string;
  readonly image: KeptKind;
  /** `target`: a path for what it makes, where nothing is. */
  words(image: Image, target: string): string[];
  /** Name of the metric for the seconds from start to end. */
  readonly secondsMetric: string;
  /** Name of the metric for the largest resident memory. */
  readonly memoryMetric?: string;
}

export interface CommandSuite {
  readonly workloads: CommandWorkload[];
  readonly targets: Target[];
}

/** The other tool, in reports. */
export const QEMU_IMG = 'qemu-img';

const tools: CommandSuite = {
  workloads: [
    {
      name: 'check-1t',
      image: 'mapped1t',
      words: ({ path }) => ['check', '-q', path],
      secondsMetric: 'check of 1 TiB, fully mapped',
      memoryMetric: 'check of 1 TiB, memory',
    },
    {
      name: 'check-16-layers',
      image: 'chain16',
      words: ({ path }) => ['check', '-q', path],
      secondsMetric: 'check of the top of 16 layers',
    },
    {
      name: 'info',
      image: 'mapped1t',
      words: ({ path }) => ['info', path],
      secondsMetric: 'info',
    },
    {
      name: 'info-json-chain',
      image: 'chain16',
      words: ({ path }) => ['info', '--output=json', '--backing-chain', path],
      secondsMetric: 'info --backing-chain, 16 layers',
    },
  ],
  targets: [
    { metric: 'check of 1 TiB, fully mapped', peer: QEMU_IMG, atMost: 1.4 },
    { metric: 'check of 1 TiB, memory', atMost: 200 },
    { metric: 'info', atMost: 0.15 },
  ],
};

/**
 * Both tools with the cache modes that they have by themselves, which make nothing durable, and looking for
 * zeroes in steps of 4 KiB.
 */
const convert: CommandSuite = {
  workloads: [
    {
      name: 'raw-qcow2',
      image: 'mixed',
      words: ({ rawPath }, target) => words('raw', 'qcow2', [], rawPath, target),
      secondsMetric: 'convert, raw to qcow2',
    },
    {
      name: 'qcow2-raw',
      image: 'mixed',
      words: ({ path }, target) => words('qcow2', 'raw', [], path, target),
      secondsMetric: 'convert, qcow2 to raw',
    },
    ...(['zlib', 'zstd'] as const).map((type) => ({
      name: `${type}`,
      image: 'mixedquarter' as const,
      words: ({ rawPath }: Image, target: string) =>
        words('raw', 'qcow2', ['-c', '-o', `compression_type=${type}`], rawPath, target),
      secondsMetric: `convert -c, ${type}`,
    })),
  ],
  targets: ['raw to qcow2', 'qcow2 to raw', '-c, zlib', '-c, zstd'].map((what) => ({
    metric: what.startsWith('-') ? `convert ${what}` : `convert, ${what}`,
    peer: QEMU_IMG,
    atMost: 1,
  })),
};

function words(from: string, to: string, more: string[], source: string, target: string) {
  return ['convert', '-f', from, '-O', to, ...more, source, target];
}

export const commandSuites = { tools, convert } satisfies Record<string, CommandSuite>;

export type CommandSuiteName = keyof typeof commandSuites;

export function isCommandSuite(name: string): name is CommandSuiteName {
  return Object.hasOwn(commandSuites, name);
}

/** The unit of a metric, or undefined where no suite of commands has it. */
export function commandUnitOf(metric: string): 's' | 'MiB' | undefined {
  for (const { workloads } of Object.values<CommandSuite>(commandSuites)) {
    if (workloads.some(({ secondsMetric }) => secondsMetric === metric)) return 's';
    if (workloads.some(({ memoryMetric }) => memoryMetric === metric)) return 'MiB';
  }
  return undefined;
}
