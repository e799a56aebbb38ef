/**
 * The worker threads of a mount. One that dies is replaced, and the request that it was serving is
 * answered with EIO: the mount lives on.
 */
import { Worker } from 'node:worker_threads';
import { ERRNO } from '../errors.js';
import { SliceCache } from '../shared/slice-cache.js';
import { WorkerStatus } from '../shared/worker-status.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { OUT_HEADER } from './abi.js';
import { writeReply } from './channel.js';
import type { DispatchLog } from './dispatch.js';
import type { WorkerInput } from './worker.js';

/** Milliseconds before a dead worker's successor starts: a broken one must not spin. */
const RESTART_DELAY_MS = 20;

export interface PoolOptions {
  readonly workers: number;
  /** What each worker is given, but for its index. */
  readonly input: Omit<WorkerInput, 'index'>;
  readonly log: DispatchLog;
  /** The module that workers run; tests have others. */
  readonly workerUrl?: URL;
}

export class WorkerPool {
  readonly #options: PoolOptions;
  readonly #url: URL;
  #running = 0;
  #closed: () => void = () => {};
  /** Settles when the last worker has seen the end of the mount. */
  readonly closed: Promise<void>;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#url = options.workerUrl ?? new URL('./worker-main.js', import.meta.url);
    this.closed = new Promise((resolve) => {
      this.#closed = resolve;
    });
  }

  /** Starts the workers; settles when all of them serve. */
  async start(): Promise<void> {
    const starts: Promise<void>[] = [];
    for (let index = 0; index < this.#options.workers; index++) starts.push(this.#start(index));
    await Promise.all(starts);
  }

  #start(index: number): Promise<void> {
    const worker = new Worker(this.#url, { workerData: { ...this.#options.input, index } });
    this.#running++;
    let failure: unknown;
    return new Promise((resolve, reject) => {
      let serving = false;
      worker.once('message', () => {
        serving = true;
        resolve();
      });
      worker.once('error', (error) => {
        failure = error;
      });
      worker.once('exit', (code) => {
        this.#running--;
        // One that ends well with a request unanswered has not seen the end of the mount.
        const pending = new WorkerStatus(this.#options.input.status, index).pending();
        if (code === 0 && failure === undefined && pending === undefined) {
          resolve();
          if (this.#running === 0) this.#closed();
          return;
        }
        if (!serving) reject(failure ?? new Error(`worker ${index} ended with code ${code}`));
        else this.#replace(index, failure ?? `exit code ${code}`);
      });
    });
  }

  #replace(index: number, failure: unknown): void {
    const { input, log } = this.#options;
    const words = failure instanceof Error ? (failure.stack ?? failure.message) : String(failure);
    log.error(`worker ${index} died and is replaced: ${words}`);
    const status = new WorkerStatus(input.status, index);
    const pending = status.pending();
    new SliceCache(input.cache, index + 1, unused).recover(index + 1);
    if (pending !== undefined) {
      const reply = new IoBuffer(OUT_HEADER.size);
      reply.view.setUint32(OUT_HEADER.offsets.len, reply.length, true);
      reply.view.setInt32(OUT_HEADER.offsets.error, -ERRNO.EIO, true);
      reply.view.setUint32(OUT_HEADER.offsets.unique, pending.low, true);
      reply.view.setUint32(OUT_HEADER.offsets.unique + 4, pending.high, true);
      writeReply(input.fd, reply, reply.length);
      status.end();
    }
    this.#running++;
    setTimeout(() => {
      this.#running--;
      this.#start(index).catch((error: unknown) => this.#replace(index, error));
    }, RESTART_DELAY_MS);
  }
}

function unused(): never {
  throw new Error('the main thread loads no slices');
}
