import { expect } from 'chai';
import { hasBit, refuseUnknownFeatures } from '#src/image/qcow2/features.js';
import { expectImageError } from '../../helpers/errors.js';

describe('features', () => {
  it('hasBit() looks at one bit of 64', () => {
    expect(hasBit(1n << 63n, 63)).to.equal(true);
    expect(hasBit(1n << 63n, 62)).to.equal(false);
  });

  it('refuseUnknownFeatures() takes those that are known', () => {
    refuseUnknownFeatures(0n, []);
    refuseUnknownFeatures(0b11111n, []);
  });

  it('refuseUnknownFeatures() takes names of incompatible features only, each once', () => {
    const names = [
      { type: 2, bit: 5, name: 'autoclear' },
      { type: 0, bit: 5, name: 'five' },
      { type: 0, bit: 5, name: 'five again' },
      { type: 0, bit: 6, name: 'not set' },
      { type: 0, bit: 200, name: 'no bit' },
    ];
    expectImageError('ENOTSUP', /: five$/, () => refuseUnknownFeatures(0x20n, names));
    expectImageError('ENOTSUP', /: five, Unknown incompatible feature: 80$/, () =>
      refuseUnknownFeatures(0xa0n, names),
    );
  });
});
