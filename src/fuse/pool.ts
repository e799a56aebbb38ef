/**
 * The worker threads of a mount. One that dies is replaced, and the request that it was serving is
 * answered with EIO: the mount lives on.
 */
import { Worker } from 'node:worker_threads';
import { ERRNO, errorStack } from '../errors.js';
import type { QuestionLine } from '../shared/questions.js';
import { WorkerStatus } from '../shared/worker-status.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { OUT_HEADER } from './abi.js';
import { isUnmounted, writeReply } from './channel.js';
import type { DispatchLog } from './dispatch.js';
import { type Progress, type RestartOptions, Restarts } from './restarts.js';
import type { WorkerInput, WorkerWord } from './worker.js';

/** The module that workers run. */
export const WORKER_URL = new URL('../fuse/worker-main.js', import.meta.url);

/**
 * Of workers that serve many images: what they keep of each is soon of no use, and would fill what is
 * meant for what is used on.
 */
const OF_MANY = { maxYoungGenerationSizeMb: 4 };

export interface PoolOptions {
  readonly workers: number;
  /** What each worker is given, but for its index. */
  readonly input: Omit<WorkerInput, 'index' | 'line'>;
  /** Makes each worker's line to the main thread, if it needs one. */
  readonly connect?: (() => QuestionLine) | undefined;
  /** Frees what a worker held that has died, by its number as an owner. */
  readonly recover: (owner: number) => void;
  readonly log: DispatchLog;
  /** The module that workers run; tests have others. */
  readonly workerUrl?: URL;
  /** How long to wait before restarts, and when to give up. */
  readonly restarts?: RestartOptions;
}

export class WorkerPool {
  readonly #options: PoolOptions;
  readonly #url: URL;
  readonly #restarts: readonly Restarts[];
  /** Workers that run, or will once more. */
  #running = 0;
  /** Those of them that wait for requests or serve one. */
  #ready = 0;
  #ended = false;
  #close: () => void = () => {};
  #fail: (error: Error) => void = () => {};
  /**
   * Settles when the last worker has seen the end of the mount; rejects when no worker can be made
   * to serve any more.
   */
  readonly closed: Promise<void>;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#url = options.workerUrl ?? WORKER_URL;
    this.#restarts = Array.from({ length: options.workers }, () => new Restarts(options.restarts));
    this.closed = new Promise((resolve, reject) => {
      this.#close = resolve;
      this.#fail = reject;
    });
    // Who waits sees it; nobody has to.
    this.closed.catch(() => {});
  }

  /** Starts the workers; settles when all of them serve. Rejects where one cannot. */
  async start(): Promise<void> {
    const starts = this.#restarts.map((_, index) => {
      this.#running++;
      return this.#start(index);
    });
    try {
      await Promise.all(starts);
    } catch (error) {
      this.#ended = true;
      throw error;
    }
  }

  /** Settles when the worker is ready; rejects where it ends before. */
  async #start(index: number): Promise<void> {
    let worker: Worker;
    try {
      const { connect, input } = this.#options;
      const line = connect?.();
      worker = new Worker(this.#url, {
        workerData: { ...input, index, line } satisfies WorkerInput,
        ...(line !== undefined && { transferList: [line.port], resourceLimits: OF_MANY }),
      });
    } catch (error) {
      this.#leave();
      throw error;
    }
    let progress: Progress = 'none';
    let ready = false;
    let failure: unknown;
    await new Promise<void>((resolve, reject) => {
      worker.on('message', (word: WorkerWord) => {
        if (word === 'served') {
          progress = 'served';
          return;
        }
        ready = true;
        this.#ready++;
        resolve();
      });
      worker.once('error', (error) => {
        failure = error;
      });
      worker.once('exit', (code) => {
        if (ready) this.#ready--;
        // One that ends well with a request unanswered has not seen the end of the mount.
        const pending = this.#status(index).pending();
        if (code === 0 && failure === undefined && pending === undefined) {
          resolve();
          this.#leave();
          return;
        }
        if (!ready) {
          this.#leave();
          reject(failure ?? new Error(`worker ${index} ended with code ${code}`));
          return;
        }
        if (progress === 'none' && pending !== undefined) progress = 'request';
        this.#bury(index, failure ?? `exit code ${code}`, progress);
        this.#leave();
      });
    });
  }

  /** Whether a worker serves a request now. */
  get busy(): boolean {
    return this.#restarts.some((_, index) => this.#status(index).pending() !== undefined);
  }

  #status(index: number): WorkerStatus {
    return new WorkerStatus(this.#options.input.status, index);
  }

  #leave(): void {
    this.#running--;
    if (this.#running === 0) this.#close();
  }

  /** Cleans up behind a worker that is dead, and sees to the next one. */
  #bury(index: number, failure: unknown, progress: Progress): void {
    const { input, log, recover } = this.#options;
    const words = errorStack(failure);
    recover(index + 1);
    this.#status(index).leave();
    this.#answer(index);
    const restarts = this.#restarts[index]!;
    const delay = restarts.died(progress);
    if (this.#ended || (progress === 'none' && isUnmounted(input.fd))) {
      log.error(`worker ${index} died: ${words}`);
      return;
    }
    // Others that work are worth waiting for.
    if (restarts.hopeless && this.#ready === 0) {
      log.error(`worker ${index} died: ${words}`);
      this.#ended = true;
      this.#fail(new Error('workers die before they serve anything: the mount is given up'));
      return;
    }
    log.error(`worker ${index} died and is replaced: ${words}`);
    this.#running++;
    setTimeout(() => this.#restart(index), delay);
  }

  #restart(index: number): void {
    if (this.#ended || isUnmounted(this.#options.input.fd)) {
      this.#leave();
      return;
    }
    // Counted while it was waited for; held until what comes of it is counted.
    this.#running++;
    this.#start(index)
      .catch((error: unknown) => this.#bury(index, error, 'none'))
      .finally(() => this.#leave());
  }

  /** The request that a dead worker was serving gets EIO. */
  #answer(index: number): void {
    const status = this.#status(index);
    const pending = status.pending();
    if (pending === undefined) return;
    const reply = new IoBuffer(OUT_HEADER.size);
    reply.view.setUint32(OUT_HEADER.offsets.len, reply.length, true);
    reply.view.setInt32(OUT_HEADER.offsets.error, -ERRNO.EIO, true);
    reply.view.setUint32(OUT_HEADER.offsets.unique, pending.low, true);
    reply.view.setUint32(OUT_HEADER.offsets.unique + 4, pending.high, true);
    writeReply(this.#options.input.fd, reply, reply.length);
    status.end();
  }
}
