import { expect } from 'chai';
import { parseMountOptions } from '#src/cli/options.js';
import { chooseTransport, type Means } from '#src/cli/transport.js';

describe('chooseTransport()', () => {
  const choose = (options: string, isRoot: boolean, programs: string[], packaged = true) => {
    const means: Means = {
      isRoot,
      has: (program) => programs.includes(program),
      hasFuseNative: () => packaged,
    };
    return chooseTransport(parseMountOptions([options]), means);
  };

  it('takes the word for it', () => {
    expect(choose('transport=kernel', false, [])).to.equal('kernel');
    expect(choose('transport=fuse-native', true, ['fusermount3'])).to.equal('fuse-native');
  });

  it("chooses the kernel's by itself, and the other where an ordinary user has fuse 2 alone", () => {
    for (const option of ['ro', 'transport=auto']) {
      expect(choose(option, true, [])).to.equal('kernel');
      expect(choose(option, false, ['fusermount3', 'fusermount'])).to.equal('kernel');
      expect(choose(option, false, ['fusermount'])).to.equal('fuse-native');
      expect(choose(option, false, ['fusermount'], false)).to.equal('kernel');
      expect(choose(option, false, [])).to.equal('kernel');
    }
    expect(choose('workers=2', false, ['fusermount'])).to.equal('kernel');
  });

  it('refuses what only the kernel transport takes', () => {
    for (const option of ['workers=2', 'user=nobody']) {
      expect(() => choose(`${option},transport=fuse-native`, true, [])).to.throw(
        /^option '(workers|user)': /,
      );
    }
    expect(() => choose('transport=magic', true, [])).to.throw(/unknown word 'magic'/);
  });
});
