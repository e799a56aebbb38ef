/** The form of a workload and of a promise, and the suites that hold them. */
import { commandUnitOf } from './command-suites.js';
import { cryptoTargets, cryptoWorkloads } from './crypto-workloads.js';
import type { FioJob } from './fio.js';
import type { ImageKind } from './images.js';
import { readTargets, readWorkloads } from './read-workloads.js';
import { writeTargets, writeWorkloads } from './write-workloads.js';

export type Unit = 'IOPS' | 'MB/s' | 's' | 'ms' | 'MiB';

/** One fio run on a mount. The host file takes part only where it is asked to. */
export interface FioStep {
  metric: string;
  job: FioJob;
  withHostFile?: boolean;
}

/** A tree unpacked into a file system on the disk: see tree.ts. */
export interface TreeStep {
  metric: string;
  isTree: true;
  withHostFile?: boolean;
}

export type Step = FioStep | TreeStep;

/** One mount of one image, and the runs on it in order. */
export interface Workload {
  name: string;
  image: ImageKind;
  steps: Step[];
  /**
   * Mounted writable: a new image for each mount, or one copy for the whole run, which overwriting
   * leaves as it was.
   */
  writes?: 'fresh' | 'copy';
  /** Name of the metric for the time from the command to the first byte read. */
  firstByteMetric?: string;
  /** Name of the metric for the daemon's resident memory after the last step. */
  memoryMetric?: string;
}

/** A bound on this project's median: a multiple of another median, or a number in the unit. */
export interface Target {
  metric: string;
  /** Another peer on the same metric. */
  peer?: string;
  /** Another metric of this project. */
  ownMetric?: string;
  atLeast?: number;
  atMost?: number;
}

export type SuiteName = 'read' | 'write' | 'crypto';

export interface Suite {
  workloads: Workload[];
  targets: Target[];
}

export const suites: Record<SuiteName, Suite> = {
  read: { workloads: readWorkloads, targets: readTargets },
  write: { workloads: writeWorkloads, targets: writeTargets },
  crypto: { workloads: cryptoWorkloads, targets: cryptoTargets },
};

/** The unit of a metric: small requests are counted, large ones weighed. */
export function unitOf(metric: string): Unit {
  for (const workload of [...readWorkloads, ...writeWorkloads, ...cryptoWorkloads]) {
    if (workload.firstByteMetric === metric) return 'ms';
    if (workload.memoryMetric === metric) return 'MiB';
    const step = workload.steps.find((candidate) => candidate.metric === metric);
    if (step) return 'job' in step && step.job.blockSize === 4096 ? 'IOPS' : 'MB/s';
  }
  const unit = commandUnitOf(metric);
  if (unit !== undefined) return unit;
  throw new Error(`No workload has the metric ${metric}`);
}

/** The metrics of a workload in the order in which they are taken. */
export function metricsOf(workload: Workload): string[] {
  return [
    ...(workload.firstByteMetric ? [workload.firstByteMetric] : []),
    ...workload.steps.map((step) => step.metric),
    ...(workload.memoryMetric ? [workload.memoryMetric] : []),
  ];
}
