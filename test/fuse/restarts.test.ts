import { closeSync, openSync } from 'node:fs';
import { expect } from 'chai';
import { WorkerPool } from '#src/fuse/pool.js';
import { Restarts } from '#src/fuse/restarts.js';
import type { WorkerInput } from '#src/fuse/worker.js';
import { allocateImageMemory } from '#src/image/memory.js';
import type { ImageDescription } from '#src/image/description.js';
import { allocateOpenFiles } from '#src/mount/open-files.js';
import { allocateMountState } from '#src/shared/mount-state.js';
import { allocateWorkerStatus } from '#src/shared/worker-status.js';

const IMAGE: ImageDescription = {
  layers: [{ format: 'raw', file: { path: '/dev/null', fd: 0 }, fileSize: 0 }],
  writable: false,
};

describe('Restarts', () => {
  it('died() waits twice as long each time, up to 5 s, until one has served', () => {
    const restarts = new Restarts();
    const waits = Array.from({ length: 10 }, () => restarts.died('request'));
    expect(waits).to.deep.equal([20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000]);
    expect([restarts.died('served'), restarts.died('request')]).to.deep.equal([20, 40]);
  });

  it('hopeless is when ten in a row have ended without any request', () => {
    const restarts = new Restarts();
    for (let i = 0; i < 9; i++) restarts.died('none');
    expect(restarts.hopeless).to.equal(false);
    restarts.died('request');
    for (let i = 0; i < 9; i++) restarts.died('none');
    expect(restarts.hopeless).to.equal(false);
    restarts.died('none');
    expect(restarts.hopeless).to.equal(true);
  });
});

describe('WorkerPool without a mount', () => {
  let fd: number;
  beforeEach(() => {
    fd = openSync('/dev/null', 'r+');
  });
  afterEach(() => closeSync(fd));

  function makePool(script: string, workers = 2) {
    const lines: string[] = [];
    const pool = new WorkerPool({
      recover: () => {},
      workers,
      log: { error: (line) => lines.push(line), debug: () => {} },
      input: {
        fd,
        memory: allocateImageMemory(IMAGE, { cacheSize: 256 << 10, owners: workers + 1 }),
        files: allocateOpenFiles(),
        state: allocateMountState(),
        status: allocateWorkerStatus(workers),
      } as unknown as Omit<WorkerInput, 'index'>,
      workerUrl: new URL(`data:text/javascript,${encodeURIComponent(script)}`),
      restarts: { firstMs: 1, lastMs: 4, limit: 3 },
    });
    return { pool, lines };
  }

  async function rejection(promise: Promise<void>): Promise<string> {
    return promise.then(
      () => 'none',
      (error: Error) => error.message,
    );
  }

  it('gives up on workers that die at once', async () => {
    const { pool, lines } = makePool(`
      import { parentPort } from 'node:worker_threads';
      parentPort.postMessage('ready');
      process.exit(3);`);
    await pool.start();
    expect(await rejection(pool.closed)).to.match(/die before they serve anything/);
    expect(lines.length).to.be.within(3, 12);
    expect(lines[0]).to.match(/^worker \d died and is replaced: exit code 3$/);
    expect(lines.at(-1)).to.match(/^worker \d died: exit code 3$/);
  });

  it('goes on as long as they serve something', async () => {
    const { pool, lines } = makePool(
      `
      import { parentPort } from 'node:worker_threads';
      parentPort.postMessage('ready');
      parentPort.postMessage('served');
      setTimeout(() => process.exit(process.env.QCOW2FS_TEST_END ? 0 : 3), 1);`,
      1,
    );
    await pool.start();
    while (lines.length < 12) await new Promise((done) => setTimeout(done, 5));
    const { closed } = pool;
    const late = new Promise<string>((done) => setTimeout(() => done('open'), 20));
    expect(await Promise.race([late, rejection(closed)])).to.equal('open');
    // Workers are born with this environment: the next one ends well, and the pool with it.
    process.env.QCOW2FS_TEST_END = '1';
    await closed;
    delete process.env.QCOW2FS_TEST_END;
  });

  it('start() rejects where a worker cannot start, and closed settles', async () => {
    const { pool } = makePool(`throw new Error('no start');`);
    expect(await rejection(pool.start())).to.equal('no start');
    await pool.closed;
  });
});
