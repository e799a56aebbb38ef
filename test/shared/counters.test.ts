import { expect } from 'chai';
import { allocateImageCounters, ImageCounters, imageTotals } from '#src/shared/image-counters.js';
import { allocateMadeTexts, MadeTexts } from '#src/shared/made-texts.js';
import {
  allocateRequestCounters,
  bucketLimitNs,
  LATENCY_BUCKETS,
  RequestCounters,
  requestTotals,
} from '#src/shared/request-counters.js';

describe('RequestCounters', () => {
  it('requestTotals() adds up what the workers counted, of the opcodes that were served', () => {
    const memory = allocateRequestCounters(2);
    const [first, second] = [0, 1].map((index) => new RequestCounters(memory, index));
    first!.count(15, 0.5, false);
    second!.count(15, 1.5, true);
    second!.count(9999, 1, false);
    const totals = requestTotals(memory);
    expect([...totals.keys()]).to.deep.equal([0, 15]);
    expect(totals.get(15)).to.include({ count: 2, errors: 1, milliseconds: 2 });
  });

  it('count() puts a latency into the first bucket whose limit is above it', () => {
    const times = [0, 0.001023, 0.001024, 0.02, 3, 4294, 4295, 1e7];
    for (const milliseconds of times) {
      const memory = allocateRequestCounters(1);
      new RequestCounters(memory, 0).count(3, milliseconds, false);
      const { buckets } = requestTotals(memory).get(3)!;
      const bucket = buckets.indexOf(1);
      expect(milliseconds * 1e6, `${milliseconds}`).to.be.below(bucketLimitNs(bucket));
      if (bucket > 0) expect(milliseconds * 1e6).to.be.at.least(bucketLimitNs(bucket - 1));
    }
    expect(bucketLimitNs(LATENCY_BUCKETS - 1)).to.equal(Number.POSITIVE_INFINITY);
  });
});

describe('ImageCounters', () => {
  it('imageTotals() adds up what the threads counted', () => {
    const memory = allocateImageCounters(3);
    for (const owner of [1, 3]) {
      const counters = new ImageCounters(memory, owner);
      counters.hit();
      counters.read(100);
      counters.wrote(owner);
    }
    new ImageCounters(memory, 2).miss();
    expect(imageTotals(memory)).to.deep.equal({
      ...{ cacheHits: 2, cacheMisses: 1 },
      ...{ reads: 2, readBytes: 200, writes: 2, writtenBytes: 4 },
    });
  });
});

describe('MadeTexts', () => {
  it('get() has the text of a number in every thread, until others take its place', () => {
    const memory = allocateMadeTexts();
    const [one, other] = [new MadeTexts(memory), new MadeTexts(memory)];
    const first = one.open();
    expect(other.get(first)).to.equal(undefined);
    one.put(first, Buffer.from('first'));
    expect(Buffer.from(other.get(first)!).toString()).to.equal('first');
    for (let count = 0; count < 3; count++) other.put(other.open(), Buffer.from('more'));
    expect(one.get(first)).not.to.equal(undefined);
    other.put(other.open(), Buffer.from('too many'));
    expect(one.get(first)).to.equal(undefined);
  });

  it('put() leaves what was there where a text is too long', () => {
    const texts = new MadeTexts(allocateMadeTexts());
    const number = texts.open();
    texts.put(number, Buffer.alloc((8 << 20) + 1));
    expect(texts.get(number)).to.equal(undefined);
    texts.put(number, Buffer.alloc(8 << 20));
    expect(texts.get(number)).to.have.length(8 << 20);
  });
});
