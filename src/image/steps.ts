/** Long work in steps: whoever runs it may pause between two of them, or end it there. */

/**
 * Yields the part done, from 0 to 1, wherever an error that is thrown in (`throw`) leaves things in order. Until
 * it is done, nobody else may use what it works on.
 */
export type Steps<T> = Generator<number, T, void>;

/** Runs all of it. */
export function runSteps<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/** As a part of something larger, of which it is what lies between `from` and `to`. */
export function* stepsWithin<T>(steps: Steps<T>, from: number, to: number): Steps<T> {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
    try {
      yield from + step.value * (to - from);
    } catch (error) {
      steps.throw(error);
      throw error;
    }
  }
}
