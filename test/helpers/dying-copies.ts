/** To be imported before the program: the first worker thread of a copy dies within its first claim. */
import { isMainThread, workerData } from 'node:worker_threads';
import { CopyState } from '#src/shared/copy-state.js';

/** Of the first worker; the main thread is 1. */
const FIRST = 2;

if (!isMainThread && (workerData as { owner: number }).owner === FIRST) {
  const { claim } = CopyState.prototype;
  CopyState.prototype.claim = function (_body, givesWay): void {
    // Ends the thread within the call: no `finally` runs, and what is locked stays locked.
    claim.call(this, () => process.exit(5), givesWay);
  };
}
