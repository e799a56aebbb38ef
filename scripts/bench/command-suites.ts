/** Suites of commands that run to their end, as this project's and as qemu-img's, on kept images. */
import type { Image, KeptKind } from './images.js';
import type { Target } from './workloads.js';

/** One command line for both tools. */
export interface CommandWorkload {
  readonly name: string;
  readonly image: KeptKind;
  words(image: Image): string[];
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

export const commandSuites = { tools } satisfies Record<string, CommandSuite>;

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
