/** Writing: what is measured, and what this project promises of it. */
import type { FioJob } from './fio.js';
import { MIB } from './images.js';
import { HOST_FILE, LIMIT, QEMU } from './peers.js';
import type { Target, Workload } from './workloads.js';

const overwrite4k: FioJob = {
  pattern: 'randwrite',
  blockSize: 4096,
  jobs: 4,
  direct: true,
  isTimed: true,
};
const sequential: FioJob = {
  pattern: 'write',
  blockSize: MIB,
  jobs: 1,
  direct: true,
  isTimed: true,
};
/** Each write to an empty image allocates a cluster. */
const scatter4k: FioJob = {
  pattern: 'scatter',
  blockSize: 4096,
  jobs: 1,
  direct: true,
  isTimed: false,
};
const sync4k: FioJob = { ...overwrite4k, jobs: 1, hasFsync: true };
const syncScatter4k: FioJob = { ...scatter4k, isTimed: true, hasFsync: true };

/** One and four jobs, each on an image of its own. */
const grown = (name: string, image: 'empty' | 'overlay'): Workload[] =>
  [1, 4].map((jobs) => {
    const metric = `${name}-random-4k-${jobs === 1 ? '1-job' : `${jobs}-jobs`}`;
    return {
      name: metric,
      image,
      writes: 'fresh',
      steps: [{ metric, job: { ...scatter4k, jobs } }],
    };
  });

export const writeWorkloads: Workload[] = [
  {
    name: 'overwrite-random',
    image: 'plain',
    writes: 'copy',
    steps: [
      { metric: 'overwrite-4k-4-jobs', job: overwrite4k },
      { metric: 'overwrite-4k-1-job', job: { ...overwrite4k, jobs: 1 } },
    ],
  },
  {
    name: 'overwrite-sequential',
    image: 'plain',
    writes: 'copy',
    steps: [
      { metric: 'overwrite-1m-1-job', job: sequential },
      { metric: 'overwrite-1m-4-jobs', job: { ...sequential, jobs: 4 } },
    ],
  },
  {
    name: 'grow-sequential',
    image: 'empty',
    writes: 'fresh',
    steps: [{ metric: 'grow-sequential-1m', job: { ...sequential, isTimed: false } }],
  },
  ...grown('grow', 'empty'),
  ...grown('cow', 'overlay'),
  {
    name: 'fsync',
    image: 'plain',
    writes: 'copy',
    steps: [{ metric: 'fsync-overwrite-4k', job: sync4k }],
  },
  {
    name: 'fsync-grow',
    image: 'empty',
    writes: 'fresh',
    steps: [{ metric: 'fsync-grow-4k', job: syncScatter4k }],
  },
  {
    name: 'unpack',
    image: 'empty',
    writes: 'fresh',
    steps: [{ metric: 'unpack-tree', isTree: true, withHostFile: true }],
  },
  {
    // As many writes as above, spread over all the tables of a large disk.
    name: 'grow-64g',
    image: 'empty64g',
    writes: 'fresh',
    steps: [{ metric: 'grow-64g-random-4k', job: scatter4k }],
    memoryMetric: 'grow-64g-memory',
  },
];

export const writeTargets: Target[] = [
  { metric: 'overwrite-4k-4-jobs', peer: LIMIT, atLeast: 2 },
  { metric: 'overwrite-4k-4-jobs', peer: QEMU, atLeast: 3 },
  { metric: 'overwrite-4k-1-job', peer: LIMIT, atLeast: 0.8 },
  { metric: 'overwrite-4k-1-job', peer: QEMU, atLeast: 1.3 },
  { metric: 'overwrite-1m-1-job', peer: LIMIT, atLeast: 1 },
  { metric: 'overwrite-1m-4-jobs', peer: LIMIT, atLeast: 2 },
  { metric: 'grow-sequential-1m', peer: QEMU, atLeast: 1.5 },
  { metric: 'grow-random-4k-1-job', peer: QEMU, atLeast: 1.5 },
  { metric: 'grow-random-4k-4-jobs', peer: QEMU, atLeast: 1.5 },
  { metric: 'cow-random-4k-1-job', peer: QEMU, atLeast: 1.2 },
  { metric: 'cow-random-4k-4-jobs', peer: QEMU, atLeast: 1.2 },
  { metric: 'fsync-overwrite-4k', peer: LIMIT, atLeast: 0.9 },
  { metric: 'fsync-grow-4k', peer: QEMU, atLeast: 1 },
  { metric: 'unpack-tree', peer: HOST_FILE, atLeast: 0.8 },
  { metric: 'grow-64g-memory', atMost: 200 },
];
