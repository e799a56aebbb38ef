/** How long a dead worker's successor waits, and when there is no use in another one. */

export interface RestartOptions {
  /** Milliseconds before the first restart; twice as long before each one after it. */
  readonly firstMs: number;
  readonly lastMs: number;
  /** Workers in a row that end without a single request. */
  readonly limit: number;
}

export const RESTARTS: RestartOptions = { firstMs: 20, lastMs: 5000, limit: 10 };

/** How far a worker got: nowhere, to a request that it did not finish, or further. */
export type Progress = 'none' | 'request' | 'served';

/** The restarts in one worker's place. */
export class Restarts {
  readonly #options: RestartOptions;
  #deaths = 0;
  #useless = 0;

  constructor(options: RestartOptions = RESTARTS) {
    this.#options = options;
  }

  /** A worker has died; answers after how many milliseconds to start the next one. */
  died(progress: Progress): number {
    if (progress === 'served') this.#deaths = 0;
    this.#useless = progress === 'none' ? this.#useless + 1 : 0;
    return Math.min(this.#options.firstMs * 2 ** this.#deaths++, this.#options.lastMs);
  }

  /** Whether so many have died without any request that another one will not do better. */
  get hopeless(): boolean {
    return this.#useless >= this.#options.limit;
  }
}
