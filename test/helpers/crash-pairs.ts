/**
 * Power failures over an image and its data file: two files whose flushes say nothing of each other. A
 * state of one is taken as of a file alone, and the other's is one that it can have had at that time.
 */
import { type CrashState, crashStates, notesBefore, stateAt } from './crash-states.js';
import type { Random } from './random.js';
import type { Recording } from './recording-storage.js';

/** Samples states of both; half of them begin with the data file's. */
export function* pairStates(
  image: Recording,
  data: Recording,
  wanted: number,
  random: Random,
): Generator<CrashState> {
  for (const state of crashStates(image, wanted / 2, random)) {
    const begun = begunBy(data, image, state.at, random);
    yield { ...state, data: stateAt(data, begun, random) };
  }
  for (const state of crashStates(data, wanted / 2, random)) {
    const begun = begunBy(image, data, state.at, random);
    yield {
      at: begun,
      description: `data file: ${state.description}`,
      bytes: stateAt(image, begun, random),
      data: state.bytes,
      notes: notesBefore(image.operations, begun),
    };
  }
}

/** How many operations of `one` may have begun when `at` of the other's had. */
function begunBy(one: Recording, other: Recording, at: number, random: Random): number {
  const last = at === 0 ? -1 : other.times![at - 1]!;
  const next = other.times![at] ?? Number.POSITIVE_INFINITY;
  const before = (time: number) => one.times!.filter((done) => done < time).length;
  const [least, most] = [before(last), before(next)];
  return least + random.below(most - least + 1);
}
