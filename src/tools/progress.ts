/** How long commands tell how far they are, and how they are asked to stop. */
import type { Steps } from '../image/steps.js';

export interface Progress {
  /**
   * Says how much is done, 0 to 1. To be awaited every now and then: it lets signals through, and throws
   * Cancelled where the user does not want to wait any longer. With 1 it does so in any case: to be said
   * before the step that makes the work count, which nothing stops.
   */
  advance(fraction: number): Promise<void>;
}

/** The signals by which users stop commands; the last is of a terminal that is closed. */
export const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
export type StopSignal = (typeof STOP_SIGNALS)[number];

/** The user has stopped the command. It cleans up and throws this on. */
export class Cancelled extends Error {
  readonly signal: StopSignal;

  constructor(signal: StopSignal = 'SIGINT') {
    super(signal);
    this.signal = signal;
  }
}

/** Between two times that steps let signals through, or others run. */
const STEP_MS = 10;

/** Runs steps, and tells how far they are; an error of that ends them. */
export async function advancing<T>(steps: Steps<T>, progress: Progress): Promise<T> {
  for (let told = Date.now(); ; ) {
    const step = steps.next();
    if (step.done === true) return step.value;
    if (step.value < 1 && Date.now() - told < STEP_MS) continue;
    try {
      await progress.advance(step.value);
    } catch (error) {
      steps.throw(error);
      throw error;
    }
    told = Date.now();
  }
}

export const NO_PROGRESS: Progress = { advance: async () => {} };
