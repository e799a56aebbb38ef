/** Reading encrypted images: what is measured, and what this project promises of it. */
import type { EncryptedKind } from './images.js';
import { QEMU } from './peers.js';
import { random4k, sequential } from './read-workloads.js';
import type { Target, Workload } from './workloads.js';

function workload(image: EncryptedKind): Workload {
  return {
    name: image,
    image,
    steps: [
      { metric: `${image}-sequential-1m-1-job`, job: sequential },
      { metric: `${image}-sequential-1m-4-jobs`, job: { ...sequential, jobs: 4 } },
      { metric: `${image}-random-4k-4-jobs`, job: random4k },
    ],
  };
}

export const cryptoWorkloads: Workload[] = [workload('luks-xts'), workload('luks-cbc')];

export const cryptoTargets: Target[] = cryptoWorkloads.flatMap(({ steps }) =>
  steps.map(({ metric }) => ({ metric, peer: QEMU, atLeast: 0.5 })),
);
