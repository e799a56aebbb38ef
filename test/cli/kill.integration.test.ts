/** The daemon is killed while it is written to, and commands in their middle. QCOW2FS_KILL_RUNS: how often. */
import { expect } from 'chai';
import { killCompact } from '../helpers/kill-compact.js';
import { killOnce, noWriting } from '../helpers/kill-run.js';
import { noMounts, skipSuite, useSandbox } from '../helpers/mount.js';
import { printSeed, SEED } from '../helpers/random.js';

const RUNS = Number(process.env.QCOW2FS_KILL_RUNS ?? 6);

describe('a daemon that is killed while it is written to', function () {
  this.timeout(RUNS * 20_000);
  skipSuite(() => noMounts() ?? noWriting());
  printSeed();
  const box = useSandbox();

  it('leaves all that was made certain, and no corruption', async () => {
    let flushes = 0;
    for (let run = 0; run < RUNS; run++) {
      const result = await killOnce(box(), SEED + run);
      const { fault, image } = result;
      expect(fault, `seed ${SEED + run}, ${image}: ${fault?.kind} ${fault?.what}`).to.equal(null);
      flushes += result.flushes;
    }
    expect(flushes).to.be.above(RUNS);
  });
});

describe('a command that is killed while it compacts an image', () => {
  printSeed();
  const box = useSandbox();

  it('leaves all that is read, and no corruption', async () => {
    const { fault, image, writes, of } = await killCompact(box(), SEED, 1);
    expect(fault, `seed ${SEED}, ${image}, write ${writes} of ${of}`).to.equal(null);
  });
});
