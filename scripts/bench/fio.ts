/** One fio run over one file, and what it said. */
import { run } from './process.js';

/** The part of a fio command line that a workload decides. */
export interface FioJob {
  pattern: 'read' | 'randread';
  /** Bytes per request. */
  blockSize: number;
  jobs: number;
  /** O_DIRECT: each request goes to the daemon. */
  direct: boolean;
  /** Runs for the time given instead of once through the file. */
  isTimed: boolean;
}

export interface FioResult {
  iops: number;
  bytesPerSecond: number;
  /** 99th percentile of the completion latency, in microseconds. */
  latencyP99Us: number;
}

interface FioReport {
  jobs: {
    error: number;
    read: {
      iops: number;
      bw_bytes: number;
      total_ios: number;
      clat_ns?: { percentile?: Record<string, number> };
    };
  }[];
}

function fioArguments(job: FioJob, path: string, size: number, seconds: number): string[] {
  // Jobs that read in sequence take a part of the file each; at random, all read all of it.
  const parts = job.pattern === 'read' ? job.jobs : 1;
  const share = Math.floor(size / parts / job.blockSize) * job.blockSize;
  return [
    '--name=bench',
    '--output-format=json',
    '--ioengine=psync',
    '--readonly',
    '--allow_file_create=0',
    // Never the host's page cache, which all peers find warm; the mount's own is new with the mount.
    '--invalidate=0',
    // Without it fio asks for twice the read-ahead, which dd, cmp and mount -o loop do not.
    '--fadvise_hint=0',
    '--norandommap',
    '--randrepeat=0',
    '--group_reporting',
    `--filename=${path}`,
    `--rw=${job.pattern}`,
    `--bs=${job.blockSize}`,
    `--numjobs=${job.jobs}`,
    `--direct=${job.direct ? 1 : 0}`,
    `--size=${share}`,
    ...(parts > 1 ? [`--offset_increment=${share}`] : []),
    ...(job.isTimed ? ['--time_based', `--runtime=${seconds}`] : []),
  ];
}

/** Measures `path`, of `size` bytes, for `seconds` where the job is timed. */
export async function runFio(
  job: FioJob,
  path: string,
  size: number,
  seconds: number,
  signal: AbortSignal,
): Promise<FioResult> {
  const output = await run('fio', fioArguments(job, path, size, seconds), { signal });
  // Notes may stand before the report.
  const report = JSON.parse(output.slice(output.indexOf('{\n'))) as FioReport;
  const result = report.jobs[0];
  if (result?.error !== 0 || result.read.total_ios === 0) {
    throw new Error(`fio read nothing (error ${result?.error ?? 'unknown'})`);
  }
  const { read } = result;
  return {
    iops: read.iops,
    bytesPerSecond: read.bw_bytes,
    latencyP99Us: (read.clat_ns?.percentile?.['99.000000'] ?? 0) / 1000,
  };
}
