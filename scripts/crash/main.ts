/** `npm run crash`: power failures by the thousand, over each workload in turn. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { goOn } from '../../test/helpers/crash-recovery.js';
import { type FoundFault, runStates } from '../../test/helpers/crash-run.js';
import { makeStateFolder, recordWorkload } from '../../test/helpers/crash-session.js';
import { selectWorkloads, type Workload } from '../../test/helpers/crash-workloads.js';

const usage = `usage: npm run crash -- [OPTION ...]
  --states N         states in all, over all workloads (10000)
  --seed S           from which everything follows (the time)
  --time SECONDS     go on with further seeds for so long
  --workload NAME    only workloads with this in their names; may be repeated
  --keep DIR         write the images of the first faults of each workload there
  --list             print the workloads, and end
  --help`;

interface Options {
  readonly states: number;
  readonly seed: number;
  readonly seconds: number;
  readonly workloads: readonly Workload[];
  readonly keep: string | undefined;
}

/** Faults of one workload that are told in full. */
const MOST_TOLD = 3;

const print = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

function numberOf(name: string, text: string): number {
  if (/^\d{1,10}$/.test(text)) return Number(text);
  throw new Error(`--${name}: '${text}' is not a number`);
}

function parseOptions(words: string[]): Options | null {
  const { values } = parseArgs({
    args: words,
    options: {
      states: { type: 'string', default: '10000' },
      seed: { type: 'string', default: String(Date.now() % 0x7fff_ffff) },
      time: { type: 'string', default: '0' },
      workload: { type: 'string', multiple: true, default: [] },
      keep: { type: 'string' },
      list: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const workloads = selectWorkloads(values.workload);
  if (values.help) print(usage);
  if (values.list) for (const { name } of workloads) print(name);
  if (values.help || values.list) return null;
  if (workloads.length === 0) throw new Error(`no workload '${values.workload.join()}'`);
  return {
    states: numberOf('states', values.states),
    seed: numberOf('seed', values.seed),
    seconds: numberOf('time', values.time),
    workloads,
    keep: values.keep,
  };
}

interface Totals {
  states: number;
  problems: number;
}

async function runWorkload(workload: Workload, seed: number, options: Options): Promise<Totals> {
  const folder = makeStateFolder();
  const started = performance.now();
  try {
    const { recording, data, before, refused, problem } = recordWorkload(workload, seed, folder);
    const states = Math.ceil(options.states / options.workloads.length);
    const also = goOn({ folder, before, workload, seed });
    const result = await runStates({ recording, data, before, folder, states, seed, also });
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    const count = (...kinds: string[]) =>
      result.faults.filter(({ kind }) => kinds.includes(kind)).length;
    const corrupt = count('corrupt', 'unreadable');
    const lost = count('lost', 'snapshots');
    const others = result.faults.length - corrupt - lost;
    print(
      `${workload.name.padEnd(32)} ${String(result.states).padStart(6)} states ` +
        `${corrupt} corrupt ${lost} lost ${others} others  ${seconds} s` +
        (refused.length === 0 ? '' : `  (${refused.length} refused: ${refused[0]})`),
    );
    if (problem !== null) print(`  without a crash, seed ${seed}: ${problem}`);
    for (const fault of result.faults.slice(0, MOST_TOLD)) tell(workload, seed, fault, options);
    return { states: result.states, problems: result.faults.length + (problem === null ? 0 : 1) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function tell(workload: Workload, seed: number, fault: FoundFault, { keep }: Options): void {
  print(`  seed ${seed}, state ${fault.number}: ${fault.kind}: ${fault.what}`);
  print(`    ${fault.state.description}`);
  print(`    after: ${fault.doing}`);
  if (keep === undefined) return;
  const name = `${workload.name.replaceAll('/', '-')}-${seed}-${fault.number}.qcow2`;
  mkdirSync(keep, { recursive: true });
  writeFileSync(join(keep, name), fault.state.bytes);
}

async function run(options: Options): Promise<boolean> {
  print(`seed ${options.seed}, ${options.workloads.length} workloads`);
  const total: Totals = { states: 0, problems: 0 };
  const end = performance.now() + options.seconds * 1000;
  let { seed } = options;
  do {
    for (const workload of options.workloads) {
      const { states, problems } = await runWorkload(workload, seed, options);
      total.states += states;
      total.problems += problems;
    }
    seed++;
  } while (performance.now() < end);
  print(`seeds ${options.seed} to ${seed - 1}: ${total.states} states, ${total.problems} problems`);
  return total.problems === 0;
}

const options = parseOptions(process.argv.slice(2));
if (options !== null && !(await run(options))) process.exitCode = 1;
