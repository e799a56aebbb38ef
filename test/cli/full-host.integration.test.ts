/** Commands on a host without room: they say what qemu-img says. Needs to mount small file systems. */
import { spawnSync } from 'node:child_process';
import { BothTools } from '../helpers/both-tools.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

const QCOW2 = ['create', '-q', '-f', 'qcow2'];

function umount(folder: string): void {
  spawnSync('umount', [folder]);
}

describe('commands that find no room', () => {
  let tools: BothTools;
  // Before the folder goes.
  afterEach(() => {
    for (const side of ['qemu', 'ours'] as const) umount(tools.folder(side));
  });
  const temp = useTempFolder();
  beforeEach(function () {
    tools = new BothTools(temp);
    for (const side of ['qemu', 'ours'] as const) {
      const words = ['-t', 'tmpfs', '-o', 'size=3m', 'none', tools.folder(side)];
      if (spawnSync('mount', words).status !== 0) this.skip();
    }
  });

  it('rebase', () => {
    const base = temp.at('base.raw');
    qemuImg('create', '-q', '-f', 'raw', base, '4M');
    qemuIo(base, 'write -P 7 0 4M');
    tools.make((folder) => {
      qemuImg(...QCOW2, '-b', base, '-F', 'raw', `${folder}/top.qcow2`);
    });
    tools.same(['rebase', '-b', '', 'top.qcow2']);
  });

  it('commit', () => {
    tools.make((folder) => {
      const [base, top] = [`${folder}/base.qcow2`, `${folder}/top.qcow2`];
      qemuImg(...QCOW2, base, '4M');
      qemuImg(...QCOW2, '-b', 'base.qcow2', '-F', 'qcow2', top);
      qemuIo(top, 'write 0 1500k');
      qemuIo(base, 'write 2M 500k');
    });
    tools.same(['commit', 'top.qcow2']);
  });

  for (const mode of ['full', 'falloc']) {
    it(`resize, ${mode}`, () => {
      tools.make((folder) => {
        qemuImg(...QCOW2, `${folder}/a.qcow2`, '1M');
        qemuImg('create', '-q', '-f', 'raw', `${folder}/a.raw`, '1M');
      });
      tools.same(['resize', `--preallocation=${mode}`, 'a.qcow2', '10M']);
      tools.same(['resize', '-f', 'raw', `--preallocation=${mode}`, 'a.raw', '10M']);
    });
  }
});
