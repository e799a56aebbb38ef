import { expect } from 'chai';
import { LineThrottle } from '#src/fuse/throttle.js';

describe('LineThrottle', () => {
  function harness() {
    const lines: string[] = [];
    const clock = { now: 0 };
    const throttle = new LineThrottle(
      (line) => lines.push(line),
      () => clock.now,
    );
    return { lines, clock, throttle };
  }

  it('put() drops the same line again, and lets 20 of others through in 10 s', () => {
    const { lines, clock, throttle } = harness();
    for (let i = 0; i < 30; i++) {
      clock.now += 100;
      throttle.put(`line ${i}`);
      throttle.put(`line ${i}`);
    }
    expect(lines).to.deep.equal(Array.from({ length: 20 }, (_, i) => `line ${i}`));
  });

  it('put() tells of what was left out before the first line of the next window', () => {
    const { lines, clock, throttle } = harness();
    for (let i = 0; i < 16_384; i++) throttle.put(`line ${i}`);
    clock.now = 10_000;
    throttle.put('next');
    expect(lines.slice(20)).to.deep.equal(['16364 more errors not shown', 'next']);
  });

  it('tick() tells of it once, when the window has ended', () => {
    const { lines, clock, throttle } = harness();
    for (let i = 0; i < 21; i++) throttle.put(`line ${i}`);
    throttle.tick();
    expect(lines).to.have.length(20);
    clock.now = 10_000;
    throttle.tick();
    throttle.tick();
    throttle.flush();
    expect(lines.slice(20)).to.deep.equal(['1 more errors not shown']);
  });
});
