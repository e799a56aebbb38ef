/** Decompresses the same clusters again and again, beside other threads, and counts wrong ones. */
import { parentPort, workerData } from 'node:worker_threads';
import { compress } from '@cloudpss/zstd/wasm';
import { ClusterDecompressor } from '#src/image/qcow2/compression.js';
import { COMPRESSION_TYPE } from '#src/image/qcow2/layout.js';
import { MemoryStorage } from '#src/storage/memory.js';
import { pattern } from '../../helpers/random.js';

export interface Order {
  readonly seed: number;
  readonly rounds: number;
}

const CLUSTER_SIZE = 65536;
const { seed, rounds } = workerData as Order;
const clusters = Array.from({ length: 8 }, (_, n) => pattern(seed * 100 + n, CLUSTER_SIZE));
const stored = clusters.map((cluster) => new MemoryStorage(compress(cluster)));
let wrong = 0;
for (let n = 0; n < rounds; n++) {
  // A new one each time: it must not answer with what it kept.
  const decompressor = new ClusterDecompressor(COMPRESSION_TYPE.ZSTD, CLUSTER_SIZE);
  const storage = stored[n % 8]!;
  const cluster = decompressor.cluster(storage, 0, storage.size());
  if (!clusters[n % 8]!.equals(cluster)) wrong++;
}
parentPort!.postMessage({ wrong });
