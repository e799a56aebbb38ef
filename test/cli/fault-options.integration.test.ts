/** Errors on purpose, copy-on-read and compression by options, held against qemu-io. */
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BothIo } from '../helpers/both-io.js';
import { BothTools } from '../helpers/both-tools.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

const RULES = {
  'read.conf': '[inject-error]\nevent = "read_aio"\nerrno = "28"\n',
  'once.conf': '# once\n[inject-error]\nevent = "write_aio"\nonce ="on"\n',
  'second.conf':
    '[set-state]\nevent = "read_aio"\nnew_state = "2"\n\n[inject-error]\nevent = "read_aio"\nstate = "2"\n',
  'wrong-key.conf': '[inject-error]\nevent = "read_aio"\nfoo = "5"\n',
  'wrong-line.conf': '[inject-error]\nevent = "read_aio"\nerrno="5"\n',
  'wrong-group.conf': '[foo]\n',
};

function makeTemplate(folder: string): void {
  for (const [name, text] of Object.entries(RULES)) writeFileSync(join(folder, name), text);
  const [base, top] = [join(folder, 'base.qcow2'), join(folder, 'top.qcow2')];
  qemuImg('create', '-q', '-f', 'qcow2', base, '1M');
  qemuIo(base, 'write -P 1 0 1M');
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', top);
  qemuIo(top, 'write -P 2 64k 64k');
  qemuImg('create', '-q', '-f', 'qcow2', join(folder, 'plain.qcow2'), '1M');
  const dataFile = `data_file=${join(folder, 'data')}`;
  qemuImg('create', '-q', '-f', 'qcow2', '-o', dataFile, join(folder, 'data-file.qcow2'), '1M');
  const zeroed = join(folder, 'zeroed.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', zeroed, '192k');
  qemuIo(zeroed, 'write -P 2 0 192k', 'write -z 64k 64k');
}

/** Options of a node with faults over the file. */
const FILE = 'driver=qcow2,file.driver=blkdebug,file.image.filename=top.qcow2';
/** The same over the format. */
const DISK = 'driver=blkdebug,image.driver=qcow2,image.file.filename=top.qcow2';

const OPENED = [
  'driver=blkdebug',
  `${DISK},foo=1`,
  `${DISK},align=3`,
  `${DISK},align=4k,max-transfer=5k`,
  `${DISK},max-write-zero=5,opt-write-zero=7`,
  `${DISK},config=missing.conf`,
  `${DISK},inject-error.0.event=foo`,
  `${DISK},inject-error.0.errno=5`,
  `${DISK},inject-error.0.event=read_aio,inject-error.0.iotype=foo`,
  `${DISK},inject-error.0.event=read_aio,inject-error.0.foo=1`,
  `${DISK},inject-error.0.event=read_aio,inject-error.0.errno=x`,
  `${DISK},set-state.0.event=read_aio,set-state.0.foo=1`,
  'driver=qcow2,file.driver=blkdebug',
  'driver=copy-on-read',
  'driver=copy-on-read,file.driver=qcow2,file.file.filename=top.qcow2,foo=1',
];

const RUNS: readonly (readonly [words: readonly string[], ...commands: string[]])[] = [
  [['-f', 'qcow2', 'blkdebug:read.conf:top.qcow2'], 'read 64k 4k', 'read 64k 4k'],
  [['-f', 'qcow2', 'blkdebug:second.conf:top.qcow2'], 'read 64k 4k', 'read 64k 4k', 'read 70k 4k'],
  [['-f', 'qcow2', 'blkdebug::top.qcow2'], 'read -P 2 64k 4k', 'write -P 3 64k 4k'],
  [['-f', 'qcow2', 'blkdebug:once.conf:top.qcow2'], 'write -P 3 64k 4k', 'write -P 4 64k 4k'],
  [['blkdebug:top.qcow2'], 'read 0 512'],
  [['-f', 'qcow2', 'blkdebug:wrong-key.conf:top.qcow2'], 'read 0 512'],
  [['-f', 'qcow2', 'blkdebug:wrong-line.conf:top.qcow2'], 'read 0 512'],
  [['-f', 'qcow2', 'blkdebug:wrong-group.conf:top.qcow2'], 'read 0 512'],
  [['--image-opts', `${FILE},file.inject-error.0.event=l2_load`], 'read 64k 4k'],
  [['--image-opts', `${FILE},file.align=4k`], 'write -P 3 1k 512', 'read -P 3 1k 512'],
  [
    ['--image-opts', `${DISK},inject-error.0.event=none,inject-error.0.sector=136`],
    'read 64k 4k',
    'read 68k 4k',
    'write 0 64k',
    'write 64k 64k',
    'write -z 64k 64k',
    'discard 64k 64k',
    'discard 0 64k',
  ],
  [
    [
      '--image-opts',
      `${DISK},inject-error.0.event=none,inject-error.0.iotype=write,inject-error.0.once=on`,
    ],
    'read 0 1M',
    'write 0 4k',
    'write 0 4k',
  ],
  [['--image-opts', `${DISK},opt-write-zero=256k`], 'write -z 0 960k', 'map', 'read -P 0 0 960k'],
  // The second write to the file fails: there is none.
  [
    [
      '--image-opts',
      'driver=qcow2,file.driver=blkdebug,file.image.filename=zeroed.qcow2,file.set-state.0.event=write_aio,' +
        'file.set-state.0.new_state=2,file.inject-error.0.event=write_aio,file.inject-error.0.state=2',
    ],
    'write -P 3 0 192k',
    'map',
  ],
  [
    ['--image-opts', 'driver=copy-on-read,file.driver=qcow2,file.file.filename=top.qcow2'],
    'read -P 1 0 64k',
    'map',
  ],
  [
    ['--image-opts', 'driver=compress,file.driver=qcow2,file.file.filename=plain.qcow2'],
    'write -P 5 3k 70k',
    'write -zu 512k 64k',
    'write -P 3 990k 10k',
    'read -P 5 3k 70k',
    'read -P 0 0 3k',
    'map',
  ],
  [
    ['--image-opts', 'driver=compress,file.driver=qcow2,file.file.filename=data-file.qcow2'],
    'write 0 64k',
  ],
  [['--image-opts', 'driver=compress,file.driver=raw,file.file.filename=top.qcow2'], 'read 0 1'],
  [
    ['-r', '--image-opts', 'driver=copy-on-read,file.driver=qcow2,file.file.filename=top.qcow2'],
    'read 0 1',
  ],
];

describe('errors on purpose', () => {
  const temp = useTempFolder();
  let template = '';
  before(() => {
    template = mkdtempSync(join(tmpdir(), 'qcow2fs-test-'));
    makeTemplate(template);
  });
  after(() => rmSync(template, { recursive: true, force: true }));
  const makeImages = (folder: string) => cpSync(template, folder, { recursive: true });

  for (const words of OPENED) {
    it(`opens, or says why not: ${words}`, () => {
      new BothIo(temp).same(makeImages, {
        words: ['--image-opts', words],
        commands: ['read 0 1'],
        printsOnly: true,
      });
    });
  }

  for (const [words, ...commands] of RUNS) {
    it(`come where qemu-io has them: ${words.join(' ')}`, () => {
      new BothIo(temp).same(makeImages, { words, commands });
    });
  }

  it('are told by commands as well', () => {
    const tools = new BothTools(temp);
    tools.make(makeImages);
    tools.same(['compare', 'blkdebug:read.conf:top.qcow2', 'base.qcow2']);
    tools.same(['info', 'blkdebug::missing.qcow2']);
    tools.same(['commit', '-q', 'blkdebug::top.qcow2'], { disks: ['base.qcow2', 'top.qcow2'] });
  });
});
