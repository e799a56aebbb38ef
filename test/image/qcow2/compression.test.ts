import { once } from 'node:events';
import { deflateRawSync } from 'node:zlib';
import { Worker } from 'node:worker_threads';
import { compress } from '@cloudpss/zstd/wasm';
import { expect } from 'chai';
import { ClusterDecompressor, loadZstd } from '#src/image/qcow2/compression.js';
import { COMPRESSION_TYPE } from '#src/image/qcow2/layout.js';
import { zstdFrame } from '#src/image/qcow2/zstd-frame.js';
import { MemoryStorage } from '#src/storage/memory.js';
import { expectImageError } from '../../helpers/errors.js';
import { pattern, printSeed, Random, SEED } from '../../helpers/random.js';
import type { Order } from './compression.worker.js';

await loadZstd();

const CLUSTER_SIZE = 4096;
const CLUSTER = pattern(5, CLUSTER_SIZE);
const GARBAGE = Buffer.alloc(600, 0x5a);
const { ZLIB, ZSTD } = COMPRESSION_TYPE;

function expand(type: number, stored: Uint8Array, clusterSize = CLUSTER_SIZE): Uint8Array {
  const storage = new MemoryStorage(Buffer.concat([GARBAGE, stored]));
  return new ClusterDecompressor().cluster(
    { storage, file: 0, compressionType: type, clusterSize },
    GARBAGE.length,
    2 * clusterSize,
  );
}

/** A zstd frame without a size, of blocks that each repeat one byte. */
function rleFrame(blocks: number, blockSize: number): Buffer {
  const parts = [Buffer.from('28b52ffd0058', 'hex')];
  for (let n = 0; n < blocks; n++) {
    const header = (blockSize << 3) | (1 << 1) | (n === blocks - 1 ? 1 : 0);
    parts.push(Buffer.from([header & 255, (header >> 8) & 255, header >> 16, 0x41]));
  }
  return Buffer.concat(parts);
}

describe('zstdFrame()', () => {
  it('measures a frame, whatever follows', () => {
    const frame = Buffer.from(compress(CLUSTER));
    const measured = zstdFrame(Buffer.concat([frame, GARBAGE]));
    expect(measured).to.include({ length: frame.length, contentSize: CLUSTER_SIZE });
  });

  it('tells frames of each size apart', () => {
    for (const size of [0, 1, 255, 256, 257, 65_535, 65_791, 65_792, 1 << 20]) {
      const frame = compress(Buffer.alloc(size, 7));
      expect(zstdFrame(frame)).to.include({ length: frame.length, contentSize: size });
    }
  });

  it('counts blocks where the frame does not tell its size', () => {
    const frame = rleFrame(3, 1000);
    expect(zstdFrame(frame)).to.deep.equal({
      length: frame.length,
      contentSize: undefined,
      blocks: 3,
    });
  });

  it('throws where the frame is cut, anywhere', () => {
    const frame = compress(CLUSTER);
    for (let length = 0; length < frame.length; length++) {
      expect(() => zstdFrame(frame.subarray(0, length)), `${length} bytes`).to.throw();
    }
  });

  it('throws where there is none', () => {
    expect(() => zstdFrame(GARBAGE)).to.throw('no zstd frame');
  });
});

describe('ClusterDecompressor', () => {
  printSeed();
  const deflate = (bytes: Uint8Array) => deflateRawSync(bytes, { windowBits: 12 });

  it('expands clusters with other bytes behind them', () => {
    const followed = (bytes: Uint8Array) => Buffer.concat([bytes, GARBAGE]);
    expect(CLUSTER.equals(expand(ZLIB, followed(deflate(CLUSTER))))).to.equal(true);
    expect(CLUSTER.equals(expand(ZSTD, followed(compress(CLUSTER))))).to.equal(true);
  });

  it('expands data that is larger than the cluster', () => {
    const bytes = new Random(SEED).bytes(CLUSTER_SIZE);
    for (const [type, stored] of [
      [ZLIB, deflate(bytes)],
      [ZSTD, compress(bytes)],
    ] as const) {
      expect(stored.length).to.be.above(CLUSTER_SIZE);
      expect(bytes.equals(expand(type, stored))).to.equal(true);
    }
  });

  it('expands a cluster of several zstd frames', () => {
    const frames = [compress(CLUSTER.subarray(0, 1000)), compress(CLUSTER.subarray(1000))];
    expect(CLUSTER.equals(expand(ZSTD, Buffer.concat(frames)))).to.equal(true);
  });

  it('expands zstd frames that do not tell their size', () => {
    const cluster = expand(ZSTD, Buffer.concat([rleFrame(4, 1024), GARBAGE]));
    expect(Buffer.alloc(CLUSTER_SIZE, 'A').equals(cluster)).to.equal(true);
  });

  it('keeps the last clusters', () => {
    const stored = deflate(CLUSTER);
    const storage = new MemoryStorage(stored);
    const decompressor = new ClusterDecompressor();
    const source = { storage, file: 0, compressionType: ZLIB, clusterSize: CLUSTER_SIZE };
    const first = decompressor.cluster(source, 0, stored.length);
    storage.bytes.fill(0);
    expect(decompressor.cluster(source, 0, stored.length)).to.equal(first);
    const other = { ...source, file: 1, storage: new MemoryStorage(deflate(Buffer.alloc(4096))) };
    expect(decompressor.cluster(other, 0, stored.length)).not.to.equal(first);
  });

  for (const [name, type, pack] of [
    ['zlib', ZLIB, deflate],
    ['zstd', ZSTD, compress],
  ] as const) {
    it(`refuses ${name} data that is cut, too short or too long`, () => {
      const whole = pack(CLUSTER);
      const bad = [
        new Uint8Array(),
        whole.subarray(0, whole.length - 1 - (type === ZLIB ? 8 : 0)),
        pack(CLUSTER.subarray(1)),
        pack(Buffer.alloc(CLUSTER_SIZE + 1)),
        pack(Buffer.alloc(64 << 20)),
        GARBAGE.subarray(0, 100),
      ];
      for (const stored of bad) {
        expectImageError('EIO', /memory: cannot decompress the cluster at offset 0x258: /, () =>
          expand(type, stored),
        );
      }
    });

    it(`throws nothing but EIO on damaged ${name} data`, () => {
      const random = new Random(SEED);
      for (let n = 0; n < 500; n++) {
        const stored = Buffer.from(pack(random.bytes(CLUSTER_SIZE).fill(n, 100)));
        for (let m = 0; m <= n % 3; m++) stored[random.below(stored.length)] = random.below(256);
        try {
          expect(expand(type, stored).length).to.equal(CLUSTER_SIZE);
        } catch (error) {
          expect(error).to.include({ code: 'EIO' });
        }
      }
    });
  }

  it('refuses zstd frames that would take more memory than a cluster has', () => {
    const claim = Buffer.from('28b52ffd8058ffffff7f010000', 'hex');
    expectImageError('EIO', /larger than a cluster/, () => expand(ZSTD, claim));
    const bomb = rleFrame(20_000, 128 << 10);
    const before = process.memoryUsage().rss;
    expectImageError('EIO', /cannot decompress/, () => expand(ZSTD, bomb, 2 << 20));
    expect(process.memoryUsage().rss - before).to.be.lessThan(200 << 20);
  });

  it('expands zstd in several threads at once', async () => {
    const script = new URL('./compression.worker.js', import.meta.url);
    const results = await Promise.all(
      [1, 2, 3, 4].map((seed) => {
        const order: Order = { seed, rounds: 3000 };
        return once(new Worker(script, { workerData: order }), 'message');
      }),
    );
    expect(results.map(([result]) => result)).to.deep.equal(new Array(4).fill({ wrong: 0 }));
  });
});
