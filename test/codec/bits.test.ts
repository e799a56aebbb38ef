import { expect } from 'chai';
import fc from 'fast-check';
import { alignDown, alignUp, divCeil, isAligned, runOfBits } from '#src/codec/bits.js';
import { printSeed, SEED } from '../helpers/random.js';

const LARGEST = Number.MAX_SAFE_INTEGER;

describe('bits', () => {
  printSeed();
  const value = fc.integer({ min: 0, max: LARGEST - 2 ** 21 });
  const unit = fc.integer({ min: 0, max: 21 }).map((bits) => 2 ** bits);

  it('alignDown() and alignUp() enclose the value, as BigInt reckons', () => {
    const property = fc.property(value, unit, (v, u) => {
      const down = (BigInt(v) / BigInt(u)) * BigInt(u);
      expect(alignDown(v, u)).to.equal(Number(down));
      expect(alignUp(v, u)).to.equal(Number(down === BigInt(v) ? down : down + BigInt(u)));
      expect(isAligned(v, u)).to.equal(down === BigInt(v));
    });
    fc.assert(property, { seed: SEED });
  });

  it('divCeil() rounds up', () => {
    expect(divCeil(0, 8)).to.equal(0);
    expect(divCeil(1, 8)).to.equal(1);
    expect(divCeil(8, 8)).to.equal(1);
    expect(divCeil(9, 8)).to.equal(2);
  });

  it('runOfBits() counts equal bits from the start up to bit 31', () => {
    const property = fc.property(
      fc.oneof(fc.integer(), fc.constantFrom(0, -1, 1, 1 << 31, 0x7fffffff)),
      fc.integer({ min: 0, max: 31 }),
      (mask, start) => {
        let run = 1;
        const bit = (n: number) => (mask >>> n) & 1;
        while (start + run < 32 && bit(start + run) === bit(start)) run++;
        expect(runOfBits(mask, start)).to.equal(run);
        expect(runOfBits(mask >>> 0, start)).to.equal(run);
      },
    );
    fc.assert(property, { seed: SEED, numRuns: 1000 });
  });
});
