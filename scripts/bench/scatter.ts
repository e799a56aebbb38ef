/**
 * Scattered writes: one in each equal part of the disk, in a shuffled order, so that every write to
 * an empty image allocates a cluster. fio's own random offsets would hit some clusters twice.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CLUSTER_SIZE } from './images.js';
import { seededNumbers, shuffled } from './seeded.js';

export interface Scatter {
  /** Where the logs are written. */
  directory: string;
  /** The file that fio writes to, and its size in bytes. */
  path: string;
  size: number;
  /** Number of writes, of all jobs together. */
  writes: number;
  blockSize: number;
  jobs: number;
  /** Whether each write is followed by an fsync. */
  hasFsync: boolean;
}

/** Writes a log for fio's `--read_iolog` for each job, and returns their paths. */
export function writeScatterLogs(scatter: Scatter): string[] {
  const { directory, path, size, writes, blockSize, jobs, hasFsync } = scatter;
  const next = seededNumbers(1);
  const order = shuffled(writes, next);
  const stride = size / writes;
  return Array.from({ length: jobs }, (_, job) => {
    const lines = ['fio version 2 iolog', `${path} add`, `${path} open`];
    for (let index = job; index < writes; index += jobs) {
      // Anywhere in the first cluster of its part, so that there is a head and a tail to fill.
      const block = next() % (CLUSTER_SIZE / blockSize);
      lines.push(`${path} write ${order[index]! * stride + block * blockSize} ${blockSize}`);
      if (hasFsync) lines.push(`${path} sync 0 0`);
    }
    const log = join(directory, `scatter-${job}.log`);
    writeFileSync(log, `${[...lines, `${path} close`].join('\n')}\n`);
    return log;
  });
}
