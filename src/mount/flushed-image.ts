/** One image of a mount that is written to, as the thread sees it that makes it durable. */
import { describeError, ERRNO, errnoOf, errorFacts } from '../errors.js';
import type { ImageWriter } from '../image/writer.js';
import type { MountState } from '../shared/mount-state.js';
import type { LogFacts } from '../sys/log.js';

export interface FlushedImageOptions {
  readonly writer: Pick<ImageWriter, 'flushAll' | 'close'>;
  readonly state: MountState;
  readonly log: { error(message: string, facts?: LogFacts): void };
}

/** How an attempt went: `busy`, where other threads hold the image, and nothing was told. */
export type FlushOutcome = 'done' | 'failed' | 'busy';

export class FlushedImage {
  readonly #options: FlushedImageOptions;
  #told = '';

  constructor(options: FlushedImageOptions) {
    this.#options = options;
  }

  /** Makes durable what was written, if anything was. What could not be is tried again the next time. */
  flush(): void {
    const { state, writer } = this.#options;
    if (!state.takeChanged()) return;
    if (this.#attempt(() => writer.flushAll(), true) !== 'done') state.markChanged();
  }

  /**
   * All that was written is durable, and the image closed cleanly, where it answers `done`; the log has
   * the reason where it `failed`. Nobody may be busy with the image who is not waiting for it. `again`: the
   * caller comes again where others hold it.
   */
  close(again: boolean): FlushOutcome {
    return this.#attempt(() => this.#options.writer.close(), again);
  }

  #attempt(flush: () => void, again: boolean): FlushOutcome {
    try {
      flush();
      return 'done';
    } catch (error) {
      if (errnoOf(error) === ERRNO.EAGAIN && again) return 'busy';
      const words = `flushing the image: ${describeError(error)}`;
      // What is tried again is told once.
      if (words !== this.#told) this.#options.log.error(words, { ...errorFacts(error) });
      this.#told = words;
      return 'failed';
    }
  }
}
