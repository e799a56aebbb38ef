/** One fio run over one file, and what it said. */
import { run } from './process.js';
import { writeScatterLogs } from './scatter.js';

/** The part of a fio command line that a workload decides. */
export interface FioJob {
  /** `scatter`: see scatter.ts. */
  pattern: 'read' | 'randread' | 'write' | 'randwrite' | 'scatter';
  /** Bytes per request. */
  blockSize: number;
  jobs: number;
  /** O_DIRECT: each request goes to the daemon. */
  direct: boolean;
  /** Runs for the time given instead of once through the file; scattered writes end at it. */
  isTimed: boolean;
  /** An fsync after each write. */
  hasFsync?: boolean;
}

/** What a job runs on. */
export interface FioTarget {
  path: string;
  /** Bytes. */
  size: number;
  /** Number of scattered writes. */
  scatteredWrites: number;
  /** For the logs of scattered writes. */
  scratch: string;
}

export interface FioResult {
  iops: number;
  bytesPerSecond: number;
  /** 99th percentile of the completion latency, in microseconds. */
  latencyP99Us: number;
}

interface Direction {
  iops: number;
  bw_bytes: number;
  total_ios: number;
  clat_ns?: { percentile?: Record<string, number> };
}

interface FioReport {
  jobs: { error: number; read: Direction; write: Direction }[];
}

const isReading = ({ pattern }: FioJob): boolean => pattern === 'read' || pattern === 'randread';

function patternArguments(job: FioJob, target: FioTarget, seconds: number): string[] {
  const { pattern, jobs, blockSize, isTimed } = job;
  const { path, size, scratch, scatteredWrites: writes } = target;
  if (pattern === 'scatter') {
    const hasFsync = job.hasFsync === true;
    const scatter = { directory: scratch, path, size, writes, blockSize, jobs, hasFsync };
    const logs = writeScatterLogs(scatter);
    return [`--read_iolog=${logs.join(':')}`, ...(isTimed ? [`--runtime=${seconds}`] : [])];
  }
  // Jobs that go in sequence take a part of the file each; at random, all take all of it.
  const parts = pattern === 'read' || pattern === 'write' ? jobs : 1;
  const share = Math.floor(size / parts / blockSize) * blockSize;
  return [
    `--filename=${path}`,
    `--rw=${pattern}`,
    `--size=${share}`,
    ...(isReading(job) ? ['--readonly'] : ['--fallocate=none']),
    ...(parts > 1 ? [`--offset_increment=${share}`] : []),
    ...(isTimed ? ['--time_based', `--runtime=${seconds}`] : []),
    ...(job.hasFsync ? ['--fsync=1'] : []),
  ];
}

function fioArguments(job: FioJob, target: FioTarget, seconds: number): string[] {
  return [
    '--name=bench',
    '--output-format=json',
    '--ioengine=psync',
    '--allow_file_create=0',
    // Never the host's page cache, which all peers find warm; the mount's own is new with the mount.
    '--invalidate=0',
    // Without it fio asks for twice the read-ahead, which dd, cmp and mount -o loop do not.
    '--fadvise_hint=0',
    '--norandommap',
    '--randrepeat=0',
    '--group_reporting',
    `--bs=${job.blockSize}`,
    `--numjobs=${job.jobs}`,
    `--direct=${job.direct ? 1 : 0}`,
    ...patternArguments(job, target, seconds),
  ];
}

/** Measures the target, for `seconds` where the job is timed. */
export async function runFio(
  job: FioJob,
  target: FioTarget,
  seconds: number,
  signal: AbortSignal,
): Promise<FioResult> {
  const output = await run('fio', fioArguments(job, target, seconds), { signal });
  // Notes may stand before the report.
  const report = JSON.parse(output.slice(output.indexOf('{\n'))) as FioReport;
  const result = report.jobs[0];
  const done = isReading(job) ? result?.read : result?.write;
  if (!done || result?.error !== 0 || done.total_ios === 0) {
    throw new Error(`fio did nothing (error ${result?.error ?? 'unknown'})`);
  }
  return {
    iops: done.iops,
    bytesPerSecond: done.bw_bytes,
    latencyP99Us: (done.clat_ns?.percentile?.['99.000000'] ?? 0) / 1000,
  };
}
