import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { Flusher } from '#src/fuse/flusher.js';
import { FlushedImage } from '#src/mount/flushed-image.js';
import { allocateMountState, MountState } from '#src/shared/mount-state.js';

describe('Flusher', () => {
  function make(flushAll: () => void, busy: () => boolean = () => false) {
    const lines: string[] = [];
    const state = new MountState(allocateMountState(), 1);
    const image = new FlushedImage({
      writer: { flushAll, close: flushAll },
      state,
      log: { error: (line) => lines.push(line) },
    });
    const flusher = new Flusher({
      images: () => [image],
      stop: () => state.stop(),
      state,
      busy,
      intervalMs: 5,
    });
    return { flusher, state, lines };
  }

  async function until(condition: () => boolean): Promise<void> {
    for (let tries = 0; !condition(); tries++) {
      if (tries > 1000) throw new Error('never happened');
      await sleep(2);
    }
  }

  it('flushes after changes only', async () => {
    let flushes = 0;
    const { flusher, state } = make(() => flushes++);
    await sleep(30);
    expect(flushes).to.equal(0);
    state.markChanged();
    await until(() => flushes === 1);
    await sleep(30);
    expect(flushes).to.equal(1);
    expect(flusher.finish()).to.equal(true);
  });

  it('tells an error once, and tries again', async () => {
    let flushes = 0;
    const { flusher, state, lines } = make(() => {
      flushes++;
      throw new Error('no');
    });
    state.markChanged();
    await until(() => flushes > 3);
    expect(flusher.finish()).to.equal(false);
    expect(lines).to.deep.equal(['flushing the image: no']);
  });

  it('finish() stops the mount, waits for requests, flushes, once', async () => {
    const happened: string[] = [];
    let looks = 0;
    const busy = () => {
      happened.push(`busy, stopped ${state.stopped}`);
      return ++looks < 3;
    };
    const { flusher, state } = make(() => happened.push('flush'), busy);
    expect([flusher.finish(), flusher.finish()]).to.deep.equal([true, true]);
    const look = 'busy, stopped true';
    expect(happened).to.deep.equal([look, look, look, 'flush']);
    state.markChanged();
    await sleep(30);
    expect(happened).to.have.length(4);
  });
});
