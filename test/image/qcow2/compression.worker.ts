/** Decompresses the same clusters again and again, beside other threads, and counts wrong ones. */
import { parentPort, workerData } from 'node:worker_threads';
import { compress } from '@cloudpss/zstd/wasm';
import { ClusterDecompressor, loadZstd } from '#src/image/qcow2/compression.js';
import { COMPRESSION_TYPE } from '#src/image/qcow2/layout.js';
import { MemoryStorage } from '#src/storage/memory.js';
import { pattern } from '../../helpers/random.js';

export interface Order {
  readonly seed: number;
  readonly rounds: number;
}

await loadZstd();

const CLUSTER_SIZE = 65536;
const { seed, rounds } = workerData as Order;
const clusters = Array.from({ length: 8 }, (_, n) => pattern(seed * 100 + n, CLUSTER_SIZE));
const stored = clusters.map((cluster) => new MemoryStorage(compress(cluster)));
let wrong = 0;
for (let n = 0; n < rounds; n++) {
  // A new one each time: it must not answer with what it kept.
  const decompressor = new ClusterDecompressor();
  const storage = stored[n % 8]!;
  const source = {
    storage,
    file: 0,
    compressionType: COMPRESSION_TYPE.ZSTD,
    clusterSize: CLUSTER_SIZE,
  };
  const cluster = decompressor.cluster(source, 0, storage.size());
  if (!clusters[n % 8]!.equals(cluster)) wrong++;
}
parentPort!.postMessage({ wrong });
