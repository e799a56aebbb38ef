import { expect } from 'chai';
import { allocateOpenWindows, OpenWindows } from '#src/shared/open-windows.js';

describe('OpenWindows', () => {
  const START = 2 ** 45 + 512;

  it('keeps the place of a partition while it is open, for all threads', () => {
    const memory = allocateOpenWindows();
    const [one, two] = [new OpenWindows(memory, 1), new OpenWindows(memory, 2)];
    const slot = one.open(5, START, 1024);
    expect([two.start(slot), two.size(slot), two.find(5)]).to.deep.equal([START, 1024, slot]);
    two.close(slot);
    expect(one.find(5)).to.equal(-1);
  });

  it('shares a slot between files of the same place, and between no others', () => {
    const windows = new OpenWindows(allocateOpenWindows(), 1);
    const first = windows.open(1, 512, 1024);
    expect(windows.open(1, 512, 1024)).to.equal(first);
    const others = [windows.open(1, 512, 2048), windows.open(2, 512, 1024)];
    expect(new Set([first, ...others]).size).to.equal(3);
    windows.close(first);
    expect(windows.start(first)).to.equal(512);
    windows.close(first);
    expect(windows.open(9, 0, 512)).to.equal(first);
  });

  it('has an end', () => {
    const windows = new OpenWindows(allocateOpenWindows(), 1);
    const slots = Array.from({ length: 1025 }, (_, n) => windows.open(1, n * 512, 512));
    expect(slots.indexOf(-1)).to.equal(1024);
    windows.close(77);
    expect(windows.open(2, 0, 512)).to.equal(77);
  });
});
