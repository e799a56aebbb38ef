/** Hammers a cache that it shares with other threads, and tells how many wrong slices it saw. */
import { parentPort, workerData } from 'node:worker_threads';
import { SliceCache, type SliceCacheMemory } from '#src/shared/slice-cache.js';
import { Random } from '../helpers/random.js';

export interface Order {
  readonly memory: SliceCacheMemory;
  readonly owner: number;
  readonly seed: number;
  readonly finds: number;
  /** Slices asked for: more than the cache holds. */
  readonly slices: number;
}

const { memory, owner, seed, finds, slices } = workerData as Order;
const random = new Random(seed);

/** Each word of a slice tells whose it is. */
const cache = new SliceCache(memory, owner, (file, offset, target) => {
  const words = new Uint32Array(target.buffer, target.byteOffset, target.length / 4);
  words.fill(file * 1_000_003 + offset / 4096);
});

let foreign = 0;
for (let n = 0; n < finds; n++) {
  const file = random.below(3);
  const number = random.below(slices);
  let seen: number[];
  let index: number;
  let sequence: number;
  do {
    index = cache.find(file, number * 4096);
    sequence = cache.sequence;
    seen = [cache.words[index]!, cache.words[index + 511]!, cache.words[index + 1023]!];
  } while (!cache.unchanged(index, sequence));
  if (seen.some((word) => word !== file * 1_000_003 + number)) foreign++;
}
parentPort!.postMessage({ foreign });
