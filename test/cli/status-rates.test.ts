import { expect } from 'chai';
import { quantile, ratesOf } from '#src/cli/status-rates.js';
import { duration } from '#src/cli/status-words.js';
import type { MountStatus } from '#src/mount/status.js';

const LIMITS = [1, 2, 4, null];

function status(now: number, reads: number, buckets: number[], since = 100): MountStatus {
  const count = buckets.reduce((sum, one) => sum + one, 0);
  const image = {
    ...{ filename: 'vm', format: 'qcow2', 'read-only': true, 'virtual-size': 1 },
    ...{ reads, 'read-bytes': reads * 4096, writes: 0, 'written-bytes': 0 },
    ...{ 'cache-hits': reads * 2, 'cache-misses': reads / 2, flushes: 0, 'flush-seconds': 0 },
    'allocated-bytes': 0,
  };
  return {
    ...{ pid: 1, since, now, workers: 1, 'resident-bytes': 0, 'cpu-seconds': 0 },
    ...{ images: [image], 'bucket-seconds': LIMITS },
    requests: { READ: { count, errors: 0, seconds: count, buckets } },
  };
}

describe('quantile()', () => {
  it('lies within the bucket of its rank, and at the limit of the last one', () => {
    expect(quantile([0, 4, 0, 0], LIMITS, 0.5)).to.equal(1.5);
    expect(quantile([1, 0, 1, 0], LIMITS, 0.5)).to.equal(1);
    expect(quantile([99, 0, 1, 0], LIMITS, 0.99)).to.equal(1);
    expect(quantile([0, 0, 0, 3], LIMITS, 0.99)).to.equal(4);
    expect(quantile([0, 0, 0, 0], LIMITS, 0.5)).to.equal(null);
  });
});

describe('ratesOf()', () => {
  it('is since the mount began where nothing is known before', () => {
    const rates = ratesOf(status(110, 20, [0, 20, 0, 0]), undefined);
    expect(rates.seconds).to.equal(10);
    expect(rates.images[0]).to.deep.include({ 'reads-per-second': 2, 'cache-hit-ratio': 0.8 });
    expect(rates.requests.READ).to.deep.include({ 'per-second': 2, 'mean-seconds': 1 });
  });

  it('is of what has been done since, and of the same process alone', () => {
    const before = status(110, 20, [0, 20, 0, 0]);
    const rates = ratesOf(status(112, 24, [0, 20, 4, 0]), before);
    expect(rates.seconds).to.equal(2);
    expect(rates.images[0]!['read-bytes-per-second']).to.equal(8192);
    expect(rates.requests.READ!['p50-seconds']).to.equal(3);
    expect(ratesOf(status(112, 24, [0, 24, 0, 0], 111), before).seconds).to.equal(1);
    const idle = ratesOf(status(112, 20, [0, 20, 0, 0]), before);
    expect(idle.images[0]!['cache-hit-ratio']).to.equal(null);
    expect(idle.requests.READ!['p99-seconds']).to.equal(null);
  });
});

describe('duration()', () => {
  it('has three digits and a unit', () => {
    const shown = [0, 2.5e-7, 1e-6, 0.000123456, 0.0999, 12.3456, 1234].map(duration);
    const small = ['0.00 µs', '0.250 µs', '1.00 µs', '123 µs'];
    expect(shown).to.deep.equal([...small, '99.9 ms', '12.3 s', '1234 s']);
  });
});
