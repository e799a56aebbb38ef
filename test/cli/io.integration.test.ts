import { BothIo } from '../helpers/both-io.js';
import { useTempFolder } from '../helpers/temp.js';
import { IO_CASES } from './io-cases.js';

describe('qemu-io', () => {
  const temp = useTempFolder();

  for (const { title, make, ...run } of IO_CASES) {
    it(`says and does what QEMU's own does: ${title}`, () => {
      new BothIo(temp).same(make ?? (() => {}), run);
    });
  }
});
