import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect } from 'chai';
import { AttachedImage } from '#src/image/attach.js';
import { allocateImageMemory } from '#src/image/memory.js';
import { closeImage, openImage } from '#src/image/open.js';
import { qemuImg, qemuRead } from '../helpers/qemu.js';
import { printSeed, SEED } from '../helpers/random.js';
import { useTempFolder } from '../helpers/temp.js';
import type { ParallelOrder } from './parallel.worker.js';

const THREADS = 4;
const ROUNDS = Number(process.env.QCOW2FS_FUZZ_STEPS ?? 2500);

describe('an image with several threads on it', () => {
  printSeed();
  const folder = useTempFolder();

  for (const options of [
    'cluster_size=4096',
    'cluster_size=64k',
    'extended_l2=on',
    'compat=0.10',
  ]) {
    it(`shows each thread what it wrote, and nobody else's bytes: ${options}`, async function () {
      this.timeout(600_000);
      const path = folder.at('disk.qcow2');
      qemuImg('create', '-f', 'qcow2', '-o', options, path, '4M');
      const { description } = openImage(path, { writable: true, lock: 'write' });
      const owners = THREADS + 1;
      const memory = allocateImageMemory(description, { cacheSize: 256 << 10, owners });
      const orders = Array.from({ length: THREADS }, (_, n): ParallelOrder => {
        const order = { description, memory, owner: n + 1, threads: THREADS, rounds: ROUNDS };
        return { ...order, seed: SEED, manages: n === 0 };
      });
      const written = await Promise.all(orders.map(run));
      new AttachedImage(description, memory, owners).writer!.flushAll();
      closeImage(description);
      qemuImg('check', path);
      const disk = qemuRead(path);
      for (const [n, sectors] of written.entries()) {
        for (const [sector, round] of sectors) {
          const at = sector * 512;
          expect([disk.readUInt32LE(at), disk.readUInt32LE(at + 4)]).to.deep.equal([n + 1, sector]);
          expect(disk.readUInt32LE(at + 8)).to.equal(round);
        }
      }
    });
  }
});

async function run(order: ParallelOrder): Promise<[number, number][]> {
  const url = new URL('./parallel.worker.js', import.meta.url);
  const worker = new Worker(url, { workerData: order });
  const [written] = (await once(worker, 'message')) as [[number, number][]];
  return written;
}
