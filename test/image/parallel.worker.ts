/**
 * One of several threads on one image. Each owns the sectors of its number: what it reads there must be
 * what it wrote last, whatever the others do to the clusters around. Every sector says whose it is, where
 * it lies and which write it is of: foreign and torn bytes are seen.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { AttachedImage } from '#src/image/attach.js';
import type { ImageDescription } from '#src/image/description.js';
import type { ImageMemory } from '#src/image/memory.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { Random } from '../helpers/random.js';

export interface ParallelOrder {
  readonly description: ImageDescription;
  readonly memory: ImageMemory;
  readonly owner: number;
  readonly threads: number;
  readonly rounds: number;
  readonly seed: number;
  /** This one also takes and deletes snapshots, and flushes. */
  readonly manages: boolean;
}

const SECTOR = 512;
const { description, memory, owner, threads, rounds, seed, manages } = workerData as ParallelOrder;
const image = new AttachedImage(description, memory, owner);
const writer = image.writer!;
const random = new Random(seed + owner);
const sectors = image.disk.size / SECTOR;
const written = new Map<number, number>();
const buffer = new IoBuffer(SECTOR);

function mark(sector: number, round: number): void {
  const words = new Uint32Array(buffer.bytes.buffer, buffer.bytes.byteOffset, buffer.length / 4);
  for (let at = 0; at < words.length; at += 4) {
    words[at] = owner;
    words[at + 1] = sector;
    words[at + 2] = round;
    words[at + 3] = 0x5eed;
  }
}

function check(sector: number): void {
  buffer.bytes.fill(0xff);
  image.enter();
  try {
    image.disk.read(sector * SECTOR, SECTOR, buffer, 0);
  } finally {
    image.leave();
  }
  const found = Buffer.from(buffer.bytes);
  const round = written.get(sector) ?? 0;
  if (round === 0) buffer.bytes.fill(0);
  else mark(sector, round);
  if (found.equals(buffer.bytes)) return;
  const words = [...new Uint32Array(found.buffer, found.byteOffset, 8)].join(' ');
  throw new Error(`thread ${owner}, sector ${sector}: ${words}, not round ${round}`);
}

function manage(round: number): void {
  const views = image.snapshots();
  if (views.length < 3) writer.createSnapshot(`round ${round}`);
  else writer.deleteSnapshot(random.pick(views).view);
}

for (let round = 1; round <= rounds; round++) {
  const sector = random.below(sectors / threads) * threads + (owner - 1);
  const what = random.below(20);
  if (what < 9) check(sector);
  else if (what < 17) {
    mark(sector, round);
    writer.write(sector * SECTOR, SECTOR, buffer, 0);
    written.set(sector, round);
  } else if (what < 19) {
    if (random.chance(0.5)) writer.discard(sector * SECTOR, SECTOR);
    else writer.zero(sector * SECTOR, SECTOR);
    written.delete(sector);
  } else if (random.chance(0.1)) writer.flush();
  if (manages && round % 100 === 0) manage(round);
}
for (const sector of written.keys()) check(sector);
parentPort!.postMessage([...written]);
