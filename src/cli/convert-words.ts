/** What the words of `convert` ask for, checked in qemu-img's order and in its words. */
import { invalid } from '../errors.js';
import type { SnapshotChoice } from '../tools/snapshot-choice.js';
import { OPTIONS } from './command-options.js';
import { type Arguments, getopt } from './getopt.js';
import { takeObjects } from './objects.js';
import { optionPairs } from './option-lists.js';
import { sizeWord } from './size-word.js';
import { snapshotChoice } from './snapshot-word.js';

const SECTOR_SIZE = 512;
const MOST_SPARSE = 16 << 20;
const DEFAULT_SPARSE = 4096;
const MOST_COROUTINES = 16;
const DEFAULT_COROUTINES = 8;

export interface ConvertWords {
  readonly args: Arguments;
  readonly sources: readonly string[];
  readonly target: string;
  readonly format: string;
  readonly creates: boolean;
  readonly snapshot: SnapshotChoice | undefined;
  readonly sparse: number;
  readonly threads: number;
  readonly rate: number;
  /** Of `-o`. */
  readonly pairs: readonly [key: string, value: string | undefined][];
}

/** Throws an ImageError or a UsageError. */
export function convertWords(words: readonly string[]): ConvertWords {
  const args = getopt(words, OPTIONS.convert);
  const values = checkValues(args);
  checkTogether(args);
  const { operands } = args;
  const target = operands.length < 2 ? undefined : operands.at(-1);
  return {
    args,
    ...values,
    sources: operands.slice(0, -1),
    target: target ?? '',
    format: args.last('O') ?? 'raw',
    creates: !args.has('n'),
    pairs: optionPairs(args.all('o')),
  };
}

/** The values of single options, each checked where it stands. */
function checkValues(args: Arguments) {
  let snapshot: SnapshotChoice | undefined;
  let sparse = args.has('C') ? 0 : DEFAULT_SPARSE;
  let threads = DEFAULT_COROUTINES;
  let rate = 0;
  const objects: string[] = [];
  for (const { name, value } of args.given) {
    if (name === 'o') optionPairs([value]);
    if (name === 'object') {
      objects.push(value);
      takeObjects(objects);
    }
    if (name === 'l') snapshot = snapshotChoice(value);
    if (name === 'S') sparse = sparseSize(value);
    if (name === 'm') threads = coroutines(value);
    if (name === 'r') rate = sizeWord('rate limit', value);
  }
  return { snapshot, sparse, threads, rate };
}

function sparseSize(text: string): number {
  const size = sizeWord('buffer size for sparse output', text);
  if (size % SECTOR_SIZE === 0 && size <= MOST_SPARSE) return size;
  throw invalid(
    `Invalid buffer size for sparse output specified. Valid sizes are multiples of ` +
      `${SECTOR_SIZE} up to ${MOST_SPARSE}. Select 0 to disable sparse detection (fully allocates output).`,
  );
}

function coroutines(text: string): number {
  const number = /^\s*[+-]?\d+$/.test(text) ? Number(text) : 0;
  if (number >= 1 && number <= MOST_COROUTINES) return number;
  throw invalid(
    'Invalid number of coroutines. Allowed number of coroutines is between 1 and ' +
      `${MOST_COROUTINES}`,
  );
}

/** Options that do not go together. */
function checkTogether(args: Arguments): void {
  const refuse = (condition: boolean, message: string): void => {
    if (condition) throw invalid(message);
  };
  const has = (name: string) => args.has(name);
  const skipsBroken = has('skip-broken-bitmaps') && !has('bitmaps');
  refuse(skipsBroken, 'Use of --skip-broken-bitmaps requires --bitmaps');
  refuse(has('C') && has('c'), 'Cannot enable copy offloading when -c is used');
  refuse(has('C') && has('S'), 'Cannot enable copy offloading when -S is used');
  refuse(has('C') && has('salvage'), 'Cannot use copy offloading in salvaging mode');
  const [creates, options] = [!has('n'), has('o')];
  refuse(has('target-image-opts') && creates, '--target-image-opts requires use of -n flag');
  refuse(!creates && options, '-o has no effect when skipping image creation');
  refuse(has('target-is-zero') && creates, '--target-is-zero requires use of -n flag');
}
