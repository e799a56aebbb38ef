/** A worker thread of a copy: tells the main thread of each range, and at last of its end. */
import { parentPort, workerData } from 'node:worker_threads';
import { CopyFailure, type CopyFailureFacts, Stopped } from './copy-failure.js';
import { type CopyJob, type CopyReport, CopyThread } from './copy-thread.js';

export interface CopyWorkerData {
  readonly job: CopyJob;
  readonly owner: number;
}

export type CopyMessage =
  | { readonly report: CopyReport }
  | { readonly failure: CopyFailureFacts }
  | { readonly end: true };

const { job, owner } = workerData as CopyWorkerData;
const tell = (message: CopyMessage): void => parentPort!.postMessage(message);

try {
  const thread = await CopyThread.start(job, owner);
  for (let report = thread.step(); report !== null; report = thread.step()) tell({ report });
  tell({ end: true });
} catch (error) {
  if (error instanceof Stopped) tell({ end: true });
  else if (error instanceof CopyFailure) tell({ failure: error.facts });
  // A bug: the thread dies of it, and the main thread hears of that.
  else throw error;
}
