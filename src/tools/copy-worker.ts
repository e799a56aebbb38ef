/** A worker thread of a copy: tells the main thread of each range, and at last of its end. */
import { parentPort, workerData } from 'node:worker_threads';
import { CopyFailure, type CopyFailureFacts, Stopped } from './copy-failure.js';
import { type CopyJob, type CopyReport, CopyThread } from './copy-thread.js';

export interface CopyWorkerData {
  readonly job: CopyJob;
  readonly owner: number;
}

export type CopyMessage =
  | { readonly reports: readonly CopyReport[] }
  | { readonly failure: CopyFailureFacts }
  | { readonly end: true };

/** Reports are told together: a message can cost as much as a range. */
const TELL_MS = 20;

const { job, owner } = workerData as CopyWorkerData;
const tell = (message: CopyMessage): void => parentPort!.postMessage(message);

try {
  const thread = await CopyThread.start(job, owner);
  let reports: CopyReport[] = [];
  let told = performance.now();
  for (let report = thread.step(); report !== null; report = thread.step()) {
    reports.push(report);
    if (performance.now() - told < TELL_MS) continue;
    tell({ reports });
    reports = [];
    told = performance.now();
  }
  tell({ reports });
  tell({ end: true });
} catch (error) {
  if (error instanceof Stopped) tell({ end: true });
  else if (error instanceof CopyFailure) tell({ failure: error.facts });
  // A bug: the thread dies of it, and the main thread hears of that.
  else throw error;
}
