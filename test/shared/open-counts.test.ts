import { Worker } from 'node:worker_threads';
import { expect } from 'chai';
import { allocateOpenCounts, OpenCounts } from '#src/shared/open-counts.js';

describe('OpenCounts', () => {
  it('claim() works only while nothing of the view is open', () => {
    const counts = new OpenCounts(allocateOpenCounts(), 1);
    counts.open(3);
    counts.open(3);
    counts.close(3);
    expect([counts.claim(3, 0), counts.claim(4, 0)]).to.deep.equal([false, true]);
    counts.close(3);
    expect([counts.claim(3, 0), counts.claim(3, 0)]).to.deep.equal([true, false]);
    counts.release(3);
    expect(counts.claim(3, 0)).to.equal(true);
  });

  it('close() of what is not open does nothing', () => {
    const counts = new OpenCounts(allocateOpenCounts(), 1);
    counts.close(1);
    expect(counts.claim(1, 0)).to.equal(true);
    counts.close(1);
    expect(counts.claim(1, 0)).to.equal(false);
  });

  it('recover() ends the claims of a thread that died, and no others', () => {
    const memory = allocateOpenCounts();
    const [one, two] = [new OpenCounts(memory, 1), new OpenCounts(memory, 2)];
    one.claim(5, 0);
    two.claim(6, 0);
    one.open(7);
    two.recover(1);
    expect([5, 6, 7].map((view) => two.claim(view, 0))).to.deep.equal([true, false, false]);
  });

  it('claim() waits for the last one to close, open() for the end of a claim', async () => {
    const memory = allocateOpenCounts();
    const counts = new OpenCounts(memory, 1);
    counts.open(1);
    counts.claim(2, 0);
    const script = `
      import { workerData, parentPort } from 'node:worker_threads';
      import { OpenCounts } from '${import.meta.resolve('#src/shared/open-counts.js')}';
      const counts = new OpenCounts(workerData, 2);
      parentPort.postMessage('ready');
      const claimed = counts.claim(1, 10_000);
      counts.open(2);
      parentPort.postMessage(claimed);`;
    const url = new URL(`data:text/javascript,${encodeURIComponent(script)}`);
    const worker = new Worker(url, { workerData: memory });
    const next = () => new Promise((resolve) => worker.once('message', resolve));
    expect(await next()).to.equal('ready');
    counts.close(1);
    counts.release(2);
    expect(await next()).to.equal(true);
    expect(counts.claim(2, 0)).to.equal(false);
    await worker.terminate();
  });
});
