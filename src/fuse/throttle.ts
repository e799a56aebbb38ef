/** A log that cannot be flooded: at most some lines in a while, and then how many were left out. */
import { describeError, ERRNO, ImageError, errnoOf, isExpected, errorStack } from '../errors.js';
import type { LogFacts } from '../sys/log.js';

const LINES = 20;
const WINDOW_MS = 10_000;

export class LineThrottle {
  readonly #put: (line: string, facts?: LogFacts) => void;
  readonly #now: () => number;
  #windowStart = Number.NEGATIVE_INFINITY;
  #shown = 0;
  #hidden = 0;
  #last = '';

  /** `now` tells the time in milliseconds. */
  constructor(
    put: (line: string, facts?: LogFacts) => void,
    now: () => number = () => performance.now(),
  ) {
    this.#put = put;
    this.#now = now;
  }

  /** Puts the line, if it is not the one before it again and the window has room for it. */
  put(line: string, facts?: LogFacts): void {
    // Read-ahead and retries would fill the log with the same line.
    if (line === this.#last) return;
    this.#last = line;
    const now = this.#now();
    if (now - this.#windowStart >= WINDOW_MS) {
      this.flush();
      this.#windowStart = now;
      this.#shown = 0;
    }
    if (this.#shown === LINES) {
      this.#hidden++;
      return;
    }
    this.#shown++;
    this.#put(line, facts);
  }

  /** Tells what was left out, if its window has ended. Cheap where there is nothing to tell. */
  tick(): void {
    if (this.#hidden > 0 && this.#now() - this.#windowStart >= WINDOW_MS) this.flush();
  }

  /** Tells what was left out. */
  flush(): void {
    if (this.#hidden > 0) this.#put(`${this.#hidden} more errors not shown`);
    this.#hidden = 0;
  }
}

/**
 * What the log says of a request that failed: I/O errors and our own bugs. Null where the caller did
 * something wrong, which is the caller's to know.
 */
export function textForLog(error: unknown): string | null {
  if (!isExpected(error)) {
    return `internal error: ${errorStack(error)}`;
  }
  if (error instanceof ImageError && error.context.told === true) return null;
  return errnoOf(error) === ERRNO.EIO ? describeError(error) : null;
}
