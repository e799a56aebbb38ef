/** `npm run kill`: the real program, killed again and again while it writes. */
import { parseArgs } from 'node:util';
import { killCompact } from '../../test/helpers/kill-compact.js';
import { killOnce } from '../../test/helpers/kill-run.js';
import { Sandbox } from '../../test/helpers/mount.js';

const usage = `usage: npm run kill -- [OPTION ...]
  --what WHAT     daemon: a mount that is written to; compact: the command; all: both, in turn (all)
  --runs N        how often (50)
  --seed S        of the first run; each run has the next one (the time)
  --time SECONDS  go on with further seeds for so long`;

const print = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

interface Run {
  readonly told: string;
  /** What is wrong; null: nothing. */
  readonly fault: string | null;
}

const RUNS: Readonly<Record<string, (sandbox: Sandbox, seed: number) => Promise<Run>>> = {
  daemon: async (sandbox, seed) => {
    const { image, writes, flushes, snapshots, fault } = await killOnce(sandbox, seed);
    const told = `${writes} writes, ${snapshots} snapshots, ${flushes} flushes; ${image}`;
    return { told, fault: fault === null ? null : `${fault.kind}: ${fault.what}` };
  },
  compact: async (sandbox, seed) => {
    const { image, writes, of, middle, fault } = await killCompact(sandbox, seed);
    const where = middle ? 'in the middle' : 'before or behind it all';
    return { told: `compact: write ${writes} of ${of}, ${where}; ${image}`, fault };
  },
};

async function run(what: string, seed: number): Promise<boolean> {
  const sandbox = new Sandbox();
  try {
    const { told, fault } = await RUNS[what]!(sandbox, seed);
    print(`seed ${seed}: ${told}: ${fault ?? 'ok'}`);
    return fault === null;
  } finally {
    sandbox.clean();
  }
}

const { values } = parseArgs({
  options: {
    what: { type: 'string', default: 'all' },
    runs: { type: 'string', default: '50' },
    seed: { type: 'string', default: String(Date.now() % 0x7fff_ffff) },
    time: { type: 'string', default: '0' },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) print(usage);
else {
  const kinds = values.what === 'all' ? Object.keys(RUNS) : [values.what];
  if (RUNS[kinds[0]!] === undefined) throw new Error(`--what: '${values.what}'`);
  const [first, least] = [Number(values.seed), Number(values.runs)];
  const end = performance.now() + Number(values.time) * 1000;
  let faults = 0;
  let seed = first;
  for (; seed < first + least || performance.now() < end; seed++) {
    if (!(await run(kinds[(seed - first) % kinds.length]!, seed))) faults++;
  }
  print(`${seed - first} runs from seed ${first}: ${faults} faults`);
  if (faults > 0) process.exitCode = 1;
}
