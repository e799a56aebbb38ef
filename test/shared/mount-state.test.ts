import { expect } from 'chai';
import { allocateMountState, MountState } from '#src/shared/mount-state.js';

describe('MountState', () => {
  it('tells once that something was changed, and for ever that the mount has stopped', () => {
    const memory = allocateMountState();
    const [one, two] = [new MountState(memory, 1), new MountState(memory, 2)];
    expect([one.takeChanged(), one.stopped]).to.deep.equal([false, false]);
    two.markChanged();
    two.markChanged();
    two.stop();
    expect([one.takeChanged(), one.takeChanged()]).to.deep.equal([true, false]);
    expect([one.stopped, two.stopped]).to.deep.equal([true, true]);
  });

  it('keeps the last failure in words, cut between characters', () => {
    const memory = allocateMountState();
    const [one, two] = [new MountState(memory, 1), new MountState(memory, 2)];
    expect(one.failure).to.equal('');
    two.failure = `a${'ä'.repeat(1000)}`;
    expect(one.failure).to.equal(`a${'ä'.repeat(511)}`);
    two.failure = 'short';
    expect(one.failure).to.equal('short');
  });

  it('recover() frees the lock of a thread that died', () => {
    const memory = allocateMountState();
    const [one, two] = [new MountState(memory, 1), new MountState(memory, 2)];
    one.lockSize();
    two.recover(1);
    two.lockSize();
    one.recover(1);
    two.unlockSize();
  });
});
