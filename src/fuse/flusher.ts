/**
 * The main thread's part in writing: what was written is made durable every few seconds, and at the
 * end of the mount, whichever end that is.
 */
import { describeError, ERRNO, errnoOf } from '../errors.js';
import type { ImageWriter } from '../image/writer.js';
import type { MountState } from '../shared/mount-state.js';
import type { DispatchLog } from './dispatch.js';

const INTERVAL_MS = 5000;
/** How long the end waits for requests that are being served. */
const LAST_REQUESTS_MS = 10_000;
const PAUSE_MS = 1;

export interface FlusherOptions {
  readonly writer: ImageWriter;
  readonly state: MountState;
  readonly log: Pick<DispatchLog, 'error'>;
  /** Whether a request is being served now. */
  readonly busy: () => boolean;
  readonly intervalMs?: number;
}

export class Flusher {
  readonly #options: FlusherOptions;
  readonly #timer: NodeJS.Timeout;
  #told = '';
  /** Whether the last attempt found the image held by others. */
  #busy = false;
  #outcome: boolean | undefined;

  constructor(options: FlusherOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.#flush(), options.intervalMs ?? INTERVAL_MS);
    this.#timer.unref();
  }

  /**
   * Ends serving, and flushes for the last time. True where all that was written is durable and the
   * image is closed cleanly; the log has the reason where not. Blocks; the second time it only
   * answers the same.
   */
  finish(): boolean {
    if (this.#outcome !== undefined) return this.#outcome;
    clearInterval(this.#timer);
    const { busy, state, writer } = this.#options;
    state.stop();
    const end = performance.now() + LAST_REQUESTS_MS;
    // One that takes longer has the locks of the image, and is waited for there.
    while (busy() && performance.now() < end) state.pause(PAUSE_MS);
    // A worker may have the image for longer than one attempt waits.
    do this.#outcome = this.#attempt(() => writer.close(), performance.now() < end);
    while (this.#busy && performance.now() < end);
    return this.#outcome;
  }

  #flush(): void {
    const { state, writer } = this.#options;
    if (!state.takeChanged()) return;
    // What could not be written is tried again, and told once.
    if (!this.#attempt(() => writer.flushAll(), true)) state.markChanged();
  }

  /** `again`: where others hold the image, it is tried again, and nothing is told. */
  #attempt(flush: () => void, again: boolean): boolean {
    this.#busy = false;
    try {
      flush();
      return true;
    } catch (error) {
      this.#busy = errnoOf(error) === ERRNO.EAGAIN;
      if (this.#busy && again) return false;
      const words = `flushing the image: ${describeError(error)}`;
      if (words !== this.#told) this.#options.log.error(words);
      this.#told = words;
      return false;
    }
  }
}
