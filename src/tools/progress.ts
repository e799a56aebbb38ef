/** How long commands tell how far they are, and how they are asked to stop. */

export interface Progress {
  /**
   * Says how much is done, 0 to 1. To be awaited every now and then: it lets signals through, and throws
   * Cancelled where the user does not want to wait any longer. With 1 it does so in any case: to be said
   * before the step that makes the work count, which nothing stops.
   */
  advance(fraction: number): Promise<void>;
}

/** The user has stopped the command. It cleans up and throws this on. */
export class Cancelled extends Error {
  readonly signal: 'SIGINT' | 'SIGTERM';

  constructor(signal: 'SIGINT' | 'SIGTERM' = 'SIGINT') {
    super(signal);
    this.signal = signal;
  }
}

export const NO_PROGRESS: Progress = { advance: async () => {} };
