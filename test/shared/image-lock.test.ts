import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect } from 'chai';
import { allocateImageLock, ImageLock } from '#src/shared/image-lock.js';
import type { LockOrder } from './image-lock.worker.js';

const THREADS = 4;

describe('ImageLock', () => {
  it('lets many share, one reserve beside them, and nobody beside who is alone', async () => {
    const lock = allocateImageLock(THREADS);
    const counts = new SharedArrayBuffer(16);
    const url = new URL('./image-lock.worker.js', import.meta.url);
    const orders = Array.from({ length: THREADS }, (_, n): LockOrder => {
      return { lock, counts, owner: n + 1, rounds: 20_000 };
    });
    await Promise.all(orders.map((order) => once(new Worker(url, { workerData: order }), 'exit')));
    expect([...new Int32Array(counts)]).to.deep.equal([0, 0, 0, 0]);
  });

  it('recover() frees what a dead thread held, and tells whether it was changing metadata', () => {
    const memory = allocateImageLock(3);
    const dead = new ImageLock(memory, 1);
    const living = new ImageLock(memory, 2);
    dead.enterShared();
    expect(living.recover(1)).to.equal(false);
    dead.reserve();
    dead.beAlone();
    expect(living.recover(1)).to.equal(true);
    living.reserve();
    living.beAlone();
    living.letIn();
    living.release();
    living.enterShared();
    living.leaveShared();
  });
});
