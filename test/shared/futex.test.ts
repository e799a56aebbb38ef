import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect } from 'chai';
import { isHeldBy, lock, unlock } from '#src/shared/futex.js';
import type { Order } from './futex.worker.js';

describe('futex', () => {
  it('lock() names the owner until unlock()', () => {
    const words = new Int32Array(new SharedArrayBuffer(8));
    expect(isHeldBy(words, 1, 5)).to.equal(false);
    lock(words, 1, 5);
    expect(isHeldBy(words, 1, 5)).to.equal(true);
    expect(isHeldBy(words, 1, 4)).to.equal(false);
    expect(isHeldBy(words, 0, 5)).to.equal(false);
    unlock(words, 1);
    expect([...words]).to.deep.equal([0, 0]);
  });

  it('lock() lets one thread in at a time, and none waits for ever', async () => {
    const words = new SharedArrayBuffer(12);
    const script = new URL('./futex.worker.js', import.meta.url);
    const workers = [1, 2, 3, 4].map((owner) => {
      const order: Order = { words, owner, rounds: 50_000 };
      return once(new Worker(script, { workerData: order }), 'message');
    });
    await Promise.all(workers);
    expect([...new Int32Array(words)]).to.deep.equal([0, 200_000, 0]);
  });

  it('unlock() by another thread frees what a dead one held', async () => {
    const words = new SharedArrayBuffer(12);
    const view = new Int32Array(words);
    lock(view, 0, 9);
    const script = new URL('./futex.worker.js', import.meta.url);
    const order: Order = { words, owner: 1, rounds: 1 };
    const done = once(new Worker(script, { workerData: order }), 'message');
    // Until the worker waits: the lock's word then has another value.
    while (view[0] === 9) await new Promise((resolve) => setTimeout(resolve, 1));
    expect(isHeldBy(view, 0, 9)).to.equal(true);
    unlock(view, 0);
    await done;
    expect([...view]).to.deep.equal([0, 1, 0]);
  });
});
