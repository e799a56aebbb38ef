/**
 * Copies a disk in this thread, and in worker threads where they are worth it: in this one until they have
 * started, which takes as long as copying some hundred MiB. Then this one only waits, so that it hears of a
 * worker that dies while others wait for it.
 */
import { Worker } from 'node:worker_threads';
import { CopyState } from '../shared/copy-state.js';
import { CopyFailure, type CopyFailureFacts } from './copy-failure.js';
import { type CopyJob, type CopyReport, CopyThread, MAIN_THREAD } from './copy-thread.js';
import type { CopyMessage, CopyWorkerData } from './copy-worker.js';
import type { Progress } from './progress.js';

/** How often it is told how far a copy is. */
const PROGRESS_MS = 50;

export interface CopyOptions {
  /** Worker threads, numbered from MAIN_THREAD + 1; none to copy in this one alone. */
  readonly threads: number;
  /** They start at once; else when reading turns out to take much longer than writing. */
  readonly startsThreads: boolean;
  /** Bytes of the disk. */
  readonly size: number;
  readonly progress: Progress;
  /** Called for each range, in the disk's order. */
  readonly onReport: (report: CopyReport) => void;
}

/**
 * Returns when all is copied and no thread runs any more. Throws a CopyFailure, Cancelled, and what
 * `onReport` throws: the first that happens.
 */
export async function runCopy(job: CopyJob, options: CopyOptions): Promise<void> {
  await options.progress.advance(0);
  const reports = new ReportOrder(options.onReport);
  await new CopyCrew(job, options, reports).run();
  await options.progress.advance(1);
}

/** Hands reports on in the order of their tickets. */
class ReportOrder {
  readonly #onReport: (report: CopyReport) => void;
  readonly #waiting = new Map<number, CopyReport>();
  #next = 0;
  /** Up to there all is done. */
  position = 0;

  constructor(onReport: (report: CopyReport) => void) {
    this.#onReport = onReport;
  }

  add(report: CopyReport): void {
    this.#waiting.set(report.ticket, report);
    for (;;) {
      const next = this.#waiting.get(this.#next);
      if (next === undefined) return;
      this.#waiting.delete(this.#next++);
      this.#onReport(next);
      this.position = next.end;
    }
  }
}

/** The threads of one copy. */
class CopyCrew {
  readonly #job: CopyJob;
  readonly #options: CopyOptions;
  readonly #reports: ReportOrder;
  readonly #state: CopyState;
  readonly #workers: Worker[] = [];
  #left = 0;
  #error: unknown;
  #wake: () => void = () => {};

  constructor(job: CopyJob, options: CopyOptions, reports: ReportOrder) {
    this.#job = job;
    this.#options = options;
    this.#reports = reports;
    this.#state = new CopyState(job.state, MAIN_THREAD);
  }

  async run(): Promise<void> {
    const { threads, startsThreads, progress, size } = this.#options;
    if (startsThreads) this.#startAll();
    // Who waits for the rate to allow more must not keep signals waiting.
    if (threads === 0 || this.#job.rate === 0) await this.#copyHere();
    while (this.#left > 0) {
      await this.#nap();
      try {
        if (this.#error === undefined) await progress.advance(this.#reports.position / size);
      } catch (error) {
        this.#fail(error);
      }
    }
    await this.#endAll();
    if (this.#error !== undefined) throw this.#error;
  }

  /** Until a worker takes over, or to the end. */
  async #copyHere(): Promise<void> {
    const { progress, size } = this.#options;
    try {
      const thread = await CopyThread.start(this.#job, MAIN_THREAD);
      for (let report = thread.step(); report !== null; report = thread.step()) {
        this.#take(report);
        await progress.advance(this.#reports.position / size);
        if (this.#workers.length === 0 && thread.isReadingSlowly) this.#startAll();
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  #startAll(): void {
    const { threads } = this.#options;
    for (let n = 0; n < threads; n++) this.#workers.push(this.#start(MAIN_THREAD + 1 + n));
  }

  #start(owner: number): Worker {
    const workerData: CopyWorkerData = { job: this.#job, owner };
    const worker = new Worker(new URL('../tools/copy-worker.js', import.meta.url), { workerData });
    this.#left++;
    let ended = false;
    const end = (): void => {
      if (!ended) this.#left--;
      ended = true;
      this.#wake();
    };
    worker.on('message', (message: CopyMessage) => {
      if ('reports' in message) for (const report of message.reports) this.#take(report);
      else if ('failure' in message) this.#fail(failureOf(message.failure));
      if (!('reports' in message)) end();
    });
    worker.on('error', (error) => this.#fail(error));
    worker.on('exit', () => {
      if (!ended) {
        this.#fail(new Error('a thread of the copy has died'));
        // Others may wait for what it held, of the copy and of the images: nobody frees that.
        void this.#endAll();
      }
      end();
    });
    return worker;
  }

  async #endAll(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #take(report: CopyReport): void {
    if (this.#error !== undefined) return;
    try {
      this.#reports.add(report);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** The first error counts; all threads are told to stop. */
  #fail(error: unknown): void {
    this.#error ??= error;
    this.#state.stop();
    this.#wake();
  }

  /** Until something ends, or it is time to tell how far it is. */
  #nap(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, PROGRESS_MS);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function failureOf(facts: CopyFailureFacts): CopyFailure {
  return new CopyFailure(facts);
}
