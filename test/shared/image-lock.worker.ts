/** Counts what others do at once, under the three ways to hold an image's lock. */
import { parentPort, workerData } from 'node:worker_threads';
import { ImageLock } from '#src/shared/image-lock.js';

export interface LockOrder {
  readonly lock: SharedArrayBuffer;
  readonly counts: SharedArrayBuffer;
  readonly owner: number;
  readonly rounds: number;
}

const { lock: memory, counts, owner, rounds } = workerData as LockOrder;
const [SHARED, RESERVED, ALONE, WRONG] = [0, 1, 2, 3];
const words = new Int32Array(counts);
const lock = new ImageLock(memory, owner);

function expectNone(...others: number[]): void {
  for (const other of others) if (Atomics.load(words, other) !== 0) Atomics.add(words, WRONG, 1);
}

for (let round = 0; round < rounds; round++) {
  if ((round + owner) % 3 !== 0) {
    lock.enterShared();
    Atomics.add(words, SHARED, 1);
    expectNone(ALONE);
    Atomics.sub(words, SHARED, 1);
    lock.leaveShared();
    continue;
  }
  lock.reserve();
  expectNone(RESERVED);
  Atomics.add(words, RESERVED, 1);
  if (round % 2 === 0) {
    lock.beAlone();
    lock.beAlone();
    lock.letIn();
    Atomics.add(words, ALONE, 1);
    expectNone(SHARED);
    Atomics.sub(words, ALONE, 1);
    lock.letIn();
  }
  Atomics.sub(words, RESERVED, 1);
  lock.release();
}
parentPort!.postMessage('done');
