/** Reading: what is measured, and what this project promises of it. */
import type { FioJob } from './fio.js';
import { MIB } from './images.js';
import { HOST_FILE, LIMIT, QEMU } from './peers.js';
import type { Target, Workload } from './workloads.js';

export const random4k: FioJob = {
  pattern: 'randread',
  blockSize: 4096,
  jobs: 4,
  direct: true,
  isTimed: true,
};
export const sequential: FioJob = {
  pattern: 'read',
  blockSize: MIB,
  jobs: 1,
  direct: true,
  isTimed: true,
};
const oncePass: FioJob = { ...sequential, isTimed: false };
const buffered: FioJob = { ...oncePass, direct: false };
const cached: FioJob = { ...buffered, isTimed: true };

const compressed = (type: 'zlib' | 'zstd'): Workload[] => [
  { name: `${type}-direct`, image: type, steps: [{ metric: `${type}-direct`, job: oncePass }] },
  { name: `${type}-buffered`, image: type, steps: [{ metric: `${type}-buffered`, job: buffered }] },
];

export const readWorkloads: Workload[] = [
  {
    name: 'mount',
    image: 'plain',
    steps: [],
    firstByteMetric: 'mount-to-first-byte',
  },
  { name: 'random', image: 'plain', steps: [{ metric: 'random-4k-4-jobs', job: random4k }] },
  {
    name: 'sequential',
    image: 'plain',
    steps: [
      { metric: 'sequential-1m-1-job', job: sequential },
      { metric: 'sequential-1m-4-jobs', job: { ...sequential, jobs: 4 } },
    ],
  },
  {
    name: 'buffered',
    image: 'plain',
    steps: [
      { metric: 'buffered-cold', job: buffered },
      { metric: 'buffered-cached', job: cached, withHostFile: true },
      // At 1 MiB the copy itself counts, and FUSE's page cache has smaller folios than ext4's or
      // XFS's, whatever the daemon does; at 4 KiB the system call does.
      { metric: 'buffered-cached-4k', job: { ...cached, blockSize: 4096 }, withHostFile: true },
    ],
  },
  ...compressed('zlib'),
  ...compressed('zstd'),
  { name: 'chain', image: 'chain16', steps: [{ metric: 'chain-16-random-4k', job: random4k }] },
  {
    name: 'mapped1g',
    image: 'mapped1g',
    steps: [{ metric: 'mapped-1g-random-4k', job: random4k }],
  },
  {
    name: 'mapped1t',
    image: 'mapped1t',
    steps: [{ metric: 'mapped-1t-random-4k', job: random4k }],
    memoryMetric: 'mapped-1t-memory',
  },
];

export const readTargets: Target[] = [
  { metric: 'mount-to-first-byte', atMost: 500 },
  { metric: 'random-4k-4-jobs', peer: LIMIT, atLeast: 0.9 },
  { metric: 'random-4k-4-jobs', peer: QEMU, atLeast: 3 },
  { metric: 'sequential-1m-1-job', peer: LIMIT, atLeast: 0.9 },
  { metric: 'sequential-1m-1-job', peer: QEMU, atLeast: 1.5 },
  { metric: 'sequential-1m-4-jobs', peer: LIMIT, atLeast: 0.9 },
  { metric: 'sequential-1m-4-jobs', peer: QEMU, atLeast: 1.5 },
  { metric: 'buffered-cold', peer: QEMU, atLeast: 2 },
  { metric: 'buffered-cached', peer: HOST_FILE, atLeast: 0.95 },
  { metric: 'buffered-cached-4k', peer: HOST_FILE, atLeast: 0.95 },
  { metric: 'zlib-direct', peer: QEMU, atLeast: 1 },
  { metric: 'zlib-buffered', peer: QEMU, atLeast: 1 },
  { metric: 'zstd-direct', peer: QEMU, atLeast: 1 },
  { metric: 'zstd-buffered', peer: QEMU, atLeast: 1 },
  { metric: 'chain-16-random-4k', peer: QEMU, atLeast: 2 },
  { metric: 'mapped-1t-random-4k', ownMetric: 'mapped-1g-random-4k', atLeast: 0.7 },
  { metric: 'mapped-1t-memory', atMost: 200 },
];
