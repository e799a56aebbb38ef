/**
 * Power failures: what a crash can leave of an image is made from a recording of all writes, QEMU
 * checks it, and what it reads is held against what was made certain. `npm run crash` does more of it.
 */
import { rmSync } from 'node:fs';
import { expect } from 'chai';
import { goOn } from '../helpers/crash-recovery.js';
import { runStates } from '../helpers/crash-run.js';
import { makeStateFolder, recordWorkload } from '../helpers/crash-session.js';
import { selectWorkloads, WORKLOADS } from '../helpers/crash-workloads.js';
import { PLANTED_FAULTS } from '../helpers/planted-faults.js';
import { printSeed, SEED } from '../helpers/random.js';

/** Of each workload. */
const STATES = 5;
/** That a planted fault may hide in, at most, with each of the seeds. */
const STATES_OF_FAULT = 300;
const FAULT_SEEDS = [1, 2, 3];

describe('an image after a crash', () => {
  printSeed();
  let folder = '';
  beforeEach(() => {
    folder = makeStateFolder();
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  for (const workload of WORKLOADS) {
    it(`is whole, and holds what was made certain: ${workload.name}`, async () => {
      const { recording, data, before, problem } = recordWorkload(workload, SEED, folder);
      expect(problem).to.equal(null);
      const also = goOn({ folder, before, workload, seed: SEED });
      const words = { recording, data, before, folder, states: STATES, seed: SEED, also };
      const { faults } = await runStates(words);
      const told = faults.map(({ kind, what, state }) => `${kind}: ${what}\n${state.description}`);
      expect(told).to.deep.equal([]);
    });
  }

  for (const fault of PLANTED_FAULTS) {
    it(`is broken, and is seen to be, by: ${fault.name}`, async () => {
      for (const seed of FAULT_SEEDS) {
        for (const workload of selectWorkloads(fault.workloads)) {
          const { recording, before } = recordWorkload(workload, seed, folder);
          const { recording: broken, moved } = fault.plant(recording);
          const words = { before, folder, states: STATES_OF_FAULT, seed, first: true };
          const { faults } = await runStates({ ...words, recording: broken, focus: moved });
          if (faults.length > 0) return;
        }
      }
      expect.fail('no state shows it');
    });
  }
});
