import { expect } from 'chai';
import { forEachRun, setBits } from '#src/codec/bit-runs.js';
import { allocateChangeMap, ChangeMap } from '#src/shared/change-map.js';
import { Random } from '../helpers/random.js';

const UNIT = 512;

function dirtyOf(map: ChangeMap, from: number, to: number): [number, number][] {
  const found: [number, number][] = [];
  map.forEachDirty(from, to, (start, end) => found.push([start, end]));
  return found;
}

describe('bits', () => {
  it('setBits(), forEachRun() are as bits one by one', () => {
    const random = new Random(11);
    for (let round = 0; round < 200; round++) {
      const truth = new Array<boolean>(300).fill(false);
      const bytes = new Uint8Array(38);
      for (let n = random.below(6); n >= 0; n--) {
        const from = random.below(300);
        const to = from + random.below(301 - from);
        setBits(bytes, from, to);
        truth.fill(true, from, to);
      }
      const first = random.below(300);
      const end = first + random.below(301 - first);
      const seen = new Array<boolean>(300).fill(false);
      let last = -1;
      forEachRun(bytes, first, end, (start, stop) => {
        expect(start).to.be.greaterThan(last);
        last = stop;
        seen.fill(true, start, stop);
      });
      expect(seen).to.deep.equal(truth.map((bit, at) => bit && at >= first && at < end));
    }
  });
});

describe('ChangeMap', () => {
  const make = (size: number, unit = UNIT) => new ChangeMap(allocateChangeMap(size, unit));

  it('tells what was marked, in whole units', () => {
    const map = make(1 << 20);
    map.mark(1000, 100);
    map.mark(5 * UNIT, 1);
    map.mark(0, 0);
    map.mark(40 * UNIT, 64 * UNIT);
    expect(dirtyOf(map, 0, 1 << 20)).to.deep.equal([
      [UNIT, 3 * UNIT],
      [5 * UNIT, 6 * UNIT],
      [40 * UNIT, 104 * UNIT],
    ]);
    expect(dirtyOf(map, 2 * UNIT, 5 * UNIT)).to.deep.equal([[2 * UNIT, 3 * UNIT]]);
    map.clear();
    expect(dirtyOf(map, 0, 1 << 20)).to.deep.equal([]);
    expect(map.keptEnd).to.equal(Number.POSITIVE_INFINITY);
  });

  it('has another version when something else is marked', () => {
    const map = make(1 << 20);
    map.mark(0, 1);
    const { version } = map;
    map.mark(0, UNIT);
    expect(map.version).to.equal(version);
    map.mark(0, UNIT + 1);
    expect(map.version).not.to.equal(version);
  });

  it('forgets what lies behind an end, also when the disk grows again', () => {
    const map = make(100 * UNIT);
    map.mark(0, 100 * UNIT);
    map.resize(100 * UNIT, 37 * UNIT);
    map.resize(37 * UNIT, 100 * UNIT);
    expect(dirtyOf(map, 0, 100 * UNIT)).to.deep.equal([[0, 37 * UNIT]]);
    expect(map.keptEnd).to.equal(37 * UNIT);
  });

  it('is coarser for a disk that is too large for it', () => {
    const size = 2 ** 50;
    const map = make(size);
    map.mark(size - 1, 1);
    const [[start, end]] = dirtyOf(map, 0, size) as [[number, number]];
    expect(end).to.equal(size);
    expect(end - start).to.equal(2 ** 20);
  });

  it('takes all that it has no bits for as dirty, where the disk has grown far', () => {
    const map = make(UNIT);
    const size = 2 ** 40;
    map.resize(UNIT, size);
    expect(dirtyOf(map, 0, size)).to.deep.equal([]);
    map.mark(size - 1, 1);
    const found = dirtyOf(map, 0, size);
    expect(found.at(-1)![1]).to.equal(size);
    map.resize(size, UNIT);
    expect(dirtyOf(map, 0, UNIT)).to.deep.equal([]);
  });
});
