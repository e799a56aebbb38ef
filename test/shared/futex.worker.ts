/** Counts up a word that is no atomic one, under a lock, many times. */
import { parentPort, workerData } from 'node:worker_threads';
import { isHeldBy, lock, unlock } from '#src/shared/futex.js';

export interface Order {
  readonly words: SharedArrayBuffer;
  readonly owner: number;
  readonly rounds: number;
}

const { words, owner, rounds } = workerData as Order;
const [LOCK, COUNT, WRONG] = [0, 1, 2];
const view = new Int32Array(words);
for (let n = 0; n < rounds; n++) {
  lock(view, LOCK, owner);
  const before = view[COUNT]!;
  for (let spin = n % 50; spin > 0; spin--) view[COUNT] = before;
  view[COUNT] = before + 1;
  if (!isHeldBy(view, LOCK, owner)) view[WRONG]! += 1;
  unlock(view, LOCK);
}
parentPort!.postMessage('done');
