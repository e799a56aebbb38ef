import { expect } from 'chai';
import { choiceOption, parseMountOptions, wantsWriting } from '#src/cli/options.js';
import { parseWords } from '#src/cli/words.js';
import { expectImageError } from '../helpers/errors.js';

describe('parseMountOptions()', () => {
  it('puts a repeated name where it was last', () => {
    const names = [...parseMountOptions(['nosuid,suid,noexec', 'nosuid']).keys()];
    expect(names).to.deep.equal(['suid', 'noexec', 'nosuid']);
    expect(parseMountOptions(['uid=1,uid=2']).get('uid')).to.equal('2');
  });

  it('ignores what fstab says to others', () => {
    const fstab =
      'nofail,_netdev,noauto,user,users,nouser,owner,group,comment=a b,x-systemd.after=c';
    expect([...parseMountOptions([`${fstab},defaults,X-x,ro`]).keys()]).to.deep.equal(['ro']);
  });

  it('of ro and rw lets the last one win', () => {
    const wants = (...words: string[]) => wantsWriting(parseMountOptions(words));
    expect(wants()).to.equal(false);
    expect(wants('rw,noatime')).to.equal(true);
    expect(wants('rw', 'ro')).to.equal(false);
    expect(wants('rw,ro,rw')).to.equal(true);
  });

  it('takes overlay with a value and without', () => {
    expect(parseMountOptions(['overlay']).get('overlay')).to.equal(true);
    expect(parseMountOptions(['overlay=a']).get('overlay')).to.equal('a');
    expectImageError('EINVAL', /needs a value/, () => parseMountOptions(['overlay=']));
  });

  it('knows words of which one is to be given', () => {
    const discard = (...words: string[]) =>
      choiceOption(parseMountOptions(words), 'discard', ['unmap', 'ignore']);
    expect([discard(), discard('discard=ignore')]).to.deep.equal(['unmap', 'ignore']);
    expectImageError('EINVAL', /'discard': unknown word 'x'/, () => discard('discard=x'));
  });

  it('refuses what nobody knows', () => {
    expectImageError('EINVAL', /'nofails': unknown/, () => parseMountOptions(['nofails']));
  });
});

describe('parseWords()', () => {
  const spec = {
    flags: ['foreground', 'no-backing'],
    values: ['o', 'format', 'log'],
    alias: { f: 'foreground', F: 'format' },
    operands: ['IMAGE', 'MOUNTPOINT'],
  };
  const parse = (...words: string[]) => parseWords(words, spec, 'usage');

  it('takes a value that is attached to its letter, all that are given', () => {
    for (const words of [
      ['-oro', '-o', 'b=c,d'],
      ['-o=ro', '-ob=c,d'],
    ]) {
      expect(parse('i', ...words, 'm').values('o')).to.deep.equal(['ro', 'b=c,d']);
    }
    expect(parse('-Fraw', 'i', 'm').values('format')).to.deep.equal(['raw']);
    for (const words of [['-foro'], ['-fo', 'ro']]) {
      const parsed = parse(...words, 'i', 'm');
      expect(parsed.flag('foreground')).to.equal(true);
      expect(parsed.values('o')).to.deep.equal(['ro']);
    }
  });

  it('takes flags that begin with no-, and leaves what comes behind -- alone', () => {
    expect(parse('--no-backing', 'i', 'm').flag('no-backing')).to.equal(true);
    expect(parse('--', '-oro', '--no-backing').operands).to.deep.equal(['-oro', '--no-backing']);
  });
});
