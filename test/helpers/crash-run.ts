/** Makes states of recordings and judges them, several at a time. */
import { checkState, type Fault } from './crash-check.js';
import { pairStates } from './crash-pairs.js';
import { type CrashState, crashStates } from './crash-states.js';
import { type DiskState, Expectation } from './disk-history.js';
import { Random } from './random.js';
import type { Operation, Recording } from './recording-storage.js';

/** Processes of qemu-img at a time. */
const PARALLEL = 3;
/** One state in so many is read by QEMU too. */
const COMPARE_EVERY = 25;

export interface RunOptions {
  readonly recording: Recording;
  /** Of the image's data file, where it has one. */
  readonly data?: Recording | undefined;
  readonly before: DiskState;
  readonly folder: string;
  readonly states: number;
  readonly seed: number;
  /** Only states in which one of these operations may be there or not. */
  readonly focus?: ReadonlySet<Operation>;
  /** Stop at the first fault. */
  readonly first?: boolean;
  /** Judges states besides. */
  readonly also?: (state: CrashState) => Promise<Fault | null>;
}

export interface FoundFault extends Fault {
  /** Which state of the run, from 0. */
  readonly number: number;
  readonly state: CrashState;
  /** What the workload was doing. */
  readonly doing: string;
}

export interface RunResult {
  readonly states: number;
  readonly faults: readonly FoundFault[];
}

export async function runStates(options: RunOptions): Promise<RunResult> {
  const { recording, data, before, folder, seed, first = false, also } = options;
  const random = new Random(seed);
  const states =
    data === undefined
      ? crashStates(recording, options.states, random, options.focus)
      : pairStates(recording, data, options.states, random);
  const faults: FoundFault[] = [];
  let count = 0;
  const judge = async (): Promise<void> => {
    for (const state of states) {
      const number = count++;
      const compareReaders = number % COMPARE_EVERY === 0;
      const fault =
        (await checkState(state, { folder, before, compareReaders })) ?? (await also?.(state));
      if (fault !== null && fault !== undefined) {
        faults.push({ ...fault, number, state, doing: new Expectation(before, state.notes).doing });
      }
      if (first && faults.length > 0) return;
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, judge));
  return { states: count, faults: faults.sort((a, b) => a.number - b.number) };
}
