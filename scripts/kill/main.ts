/** `npm run kill`: the real daemon, killed again and again while it is written to. */
import { parseArgs } from 'node:util';
import { killOnce } from '../../test/helpers/kill-run.js';
import { Sandbox } from '../../test/helpers/mount.js';

const usage = `usage: npm run kill -- [--runs=N] [--seed=S]
  --runs N   how often (50)
  --seed S   of the first run; each run has the next one (the time)`;

const print = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

async function run(runs: number, first: number): Promise<number> {
  let faults = 0;
  for (let seed = first; seed < first + runs; seed++) {
    const sandbox = new Sandbox();
    try {
      const { image, writes, flushes, snapshots, fault } = await killOnce(sandbox, seed);
      const done = `${writes} writes, ${snapshots} snapshots, ${flushes} flushes`;
      print(`seed ${seed}: ${done}; ${image}: ${fault?.kind ?? 'ok'}`);
      if (fault === null) continue;
      faults++;
      print(`  ${fault.what}`);
    } finally {
      sandbox.clean();
    }
  }
  return faults;
}

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '50' },
    seed: { type: 'string', default: String(Date.now() % 0x7fff_ffff) },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) print(usage);
else {
  const faults = await run(Number(values.runs), Number(values.seed));
  print(`${values.runs} runs from seed ${values.seed}: ${faults} faults`);
  if (faults > 0) process.exitCode = 1;
}
