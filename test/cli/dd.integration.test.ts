/** `dd` held against qemu-img: its words, and what it makes. */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { BothTools } from '../helpers/both-tools.js';
import { makeConvertImages } from '../helpers/convert-images.js';
import { qemuImg } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

const LINES = [
  'dd',
  'dd if=kept.qcow2',
  'dd of=out',
  'dd if=kept.qcow2 of=out bs=64k',
  'dd if=kept.qcow2 of=out bs=64k count=10 skip=4',
  'dd if=kept.qcow2 of=out bs=64k count=10',
  'dd if=kept.qcow2 of=out bs=64k skip=4',
  'dd if=kept.qcow2 of=out bs=64k skip=400',
  'dd if=kept.qcow2 of=out bs=0',
  'dd if=kept.qcow2 of=out bs=foo',
  'dd if=kept.qcow2 of=out bs=513 count=3',
  'dd if=kept.qcow2 of=out count=foo',
  'dd if=kept.qcow2 of=out count=0',
  'dd if=kept.qcow2 of=out foo=1',
  'dd if=kept.qcow2 of=out foo',
  'dd if=kept.qcow2 of=out iseek=1',
  'dd -f foo if=kept.qcow2 of=out',
  'dd -O foo if=kept.qcow2 of=out',
  'dd -O bochs if=kept.qcow2 of=out',
  'dd if=x of=out',
  'dd if=kept.qcow2 of=/nodir/x',
  'dd if=kept.qcow2 of=kept.qcow2',
  'dd -O qcow2 if=kept.qcow2 of=out bs=64k',
  'dd -U if=kept.qcow2 of=out bs=64k',
  'dd -x if=kept.qcow2 of=out',
  'dd --image-opts if=kept.qcow2 of=out',
  'dd --image-opts -f qcow2 if=kept.qcow2 of=out',
  'dd --image-opts if=driver=qcow2,file.filename=kept.qcow2 of=out bs=64k',
  'dd if=kept.qcow2 of=out bs=8G',
  'dd if=kept.qcow2 of=out bs=2G',
  'dd if=kept.qcow2 of=out skip=1E bs=512',
  'dd if=kept.qcow2 of=out count=8E',
  'dd if=kept.qcow2 if=small.qcow2 of=out bs=64k',
  'dd -f raw if=room.raw of=out',
  'dd --object foo if=room.raw of=out',
  'dd bs if=kept.qcow2 of=out',
  'dd bs= if=kept.qcow2 of=out',
  'dd if= of=out',
  'dd =foo if=kept.qcow2 of=out',
  'dd if=kept.qcow2 of=out -O qcow2 bs=100000 count=7 skip=1',
  'dd if=kept.qcow2 of=out bs=1M bs=2M count=1',
  'dd if=kept.qcow2 of=out foo=1 bs=0',
  'dd if=kept.qcow2 of=foo:d1',
  'dd if=kept.qcow2 of=out skip=-1',
  'dd if=unreadable.qcow2 of=out bs=64k',
  'dd if=small.qcow2 of=out bs=64k skip=17',
  'dd if=small.qcow2 of=out bs=64k skip=16',
];

describe('dd and qemu-img dd', () => {
  const temp = useTempFolder();

  it('say the same, and make the same', () => {
    const tools = new BothTools(temp);
    tools.make(makeConvertImages);
    for (const line of LINES) {
      const { status } = tools.same(line.split(' '));
      const [ours, theirs] = [tools.at('ours', 'out'), tools.at('qemu', 'out')];
      // What cannot be read to its end leaves no image here.
      if (status === 0 && existsSync(theirs)) {
        expect(qemuImg('compare', '-s', theirs, ours), line).to.equal('Images are identical.\n');
      }
      tools.make((folder) => rmSync(join(folder, 'out'), { force: true }));
    }
  });
});
