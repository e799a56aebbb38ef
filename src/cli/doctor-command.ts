/** `doctor`: what this machine lacks. */
import { coloured, type Colour } from './colour.js';
import { OPTIONS } from './command-options.js';
import { examineMachine, type Finding, type Health } from './doctor.js';
import { getopt } from './getopt.js';
import { outputFormat } from './image-options.js';
import type { Outcome } from './outcome.js';
import { UsageError } from './program.js';

const COLOURS: Readonly<Record<Health, Colour>> = {
  ok: 'green',
  optional: 'yellow',
  missing: 'red',
};
const COLUMN = 20;

/** Exits with 1 where something is missing that mounting needs. */
export async function runDoctorCommand(words: string[]): Promise<Outcome> {
  const args = getopt(words, OPTIONS.doctor);
  const [extra] = args.operands;
  if (extra !== undefined) throw new UsageError(`unexpected '${extra}'`);
  const output = outputFormat(args);
  const checks = examineMachine();
  const ok = checks.every(({ health }) => health !== 'missing');
  const text =
    output === 'json' ? JSON.stringify({ ok, checks }, null, 4) : describe(checks, ok).join('\n');
  process.stdout.write(`${text}\n`);
  return { status: ok ? 0 : 1 };
}

function describe(checks: readonly Finding[], ok: boolean): string[] {
  const lines = checks.flatMap(({ name, health, found, remedy }) => {
    const word = coloured(COLOURS[health], health.padEnd(10));
    const line = `${word}${name.padEnd(COLUMN)}${found}`;
    return remedy === undefined ? [line] : [line, `${' '.repeat(10 + COLUMN)}-> ${remedy}`];
  });
  return [...lines, '', verdict(checks, ok)];
}

function verdict([program]: readonly Finding[], ok: boolean): string {
  if (ok) return 'Images can be mounted here.';
  if (program!.health === 'missing') return 'Nothing works here before that is there.';
  return 'Images cannot be mounted here: see what is missing. Commands on images work all the same.';
}
