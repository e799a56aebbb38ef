/**
 * The main thread's part in writing: what was written is made durable every few seconds, and at the
 * end of the mount, whichever end that is.
 */
import type { FlushedImage } from '../mount/flushed-image.js';
import type { MountState } from '../shared/mount-state.js';

const INTERVAL_MS = 5000;
/** How long the end waits for requests that are being served. */
const LAST_REQUESTS_MS = 10_000;
const PAUSE_MS = 1;

export interface FlusherOptions {
  /** Those that are open for writing now. */
  readonly images: () => Iterable<FlushedImage>;
  /** Ends serving: from now on no request is served that has not begun. */
  readonly stop: () => void;
  /** Of the mount. */
  readonly state: MountState;
  /** Whether a request is being served now. */
  readonly busy: () => boolean;
  readonly intervalMs?: number;
}

export class Flusher {
  readonly #options: FlusherOptions;
  readonly #timer: NodeJS.Timeout;
  #outcome: boolean | undefined;

  constructor(options: FlusherOptions) {
    this.#options = options;
    this.#timer = setInterval(() => {
      for (const image of options.images()) image.flush();
    }, options.intervalMs ?? INTERVAL_MS);
    this.#timer.unref();
  }

  /**
   * Ends serving, and flushes for the last time. True where all that was written is durable and the
   * images are closed cleanly; the log has the reason where not. Blocks; the second time it only
   * answers the same.
   */
  finish(): boolean {
    if (this.#outcome !== undefined) return this.#outcome;
    clearInterval(this.#timer);
    const { busy, images, state, stop } = this.#options;
    stop();
    const end = performance.now() + LAST_REQUESTS_MS;
    // One that takes longer has the locks of the image, and is waited for there.
    while (busy() && performance.now() < end) state.pause(PAUSE_MS);
    let clean = true;
    for (const image of images()) clean = closed(image, end) && clean;
    this.#outcome = clean;
    return clean;
  }
}

/** A worker may have the image for longer than one attempt waits. */
function closed(image: FlushedImage, end: number): boolean {
  for (;;) {
    const outcome = image.close(performance.now() < end);
    if (outcome !== 'busy') return outcome === 'done';
  }
}
