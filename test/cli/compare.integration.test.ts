/** `compare` held against qemu-img: what it finds, its words, its exit statuses. */
import { copyFileSync, openSync, closeSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { compareDisks } from '#src/tools/compare.js';
import { openDisk } from '#src/tools/open-disk.js';
import { NO_PROGRESS } from '#src/tools/progress.js';
import { BothTools } from '../helpers/both-tools.js';
import { qemuImg, qemuIo, tryQemuImg } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

/** Overwrites bytes of a file. */
function damage(path: string, offset: number, bytes: readonly number[]): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, Uint8Array.from(bytes), 0, bytes.length, offset);
  closeSync(fd);
}

function makeImages(folder: string): void {
  const at = (name: string) => join(folder, name);
  const create = (name: string, size: string, ...words: string[]) =>
    qemuImg('create', '-q', '-f', 'qcow2', ...words, at(name), size);
  create('empty.qcow2', '1M');
  create('large.qcow2', '64M');
  create('coarse.qcow2', '64M', '-o', 'cluster_size=512k');
  create('data.qcow2', '1M');
  qemuIo(at('data.qcow2'), 'write -P 1 0 1M');
  create('backwards.qcow2', '1M');
  qemuIo(at('backwards.qcow2'), 'write -P 1 512k 512k', 'write -P 1 0 512k');
  create('one.qcow2', '1M');
  qemuIo(at('one.qcow2'), 'write -P 1 0 1M', 'write -P 2 70144 1');
  create('packed.qcow2', '1M');
  qemuIo(at('packed.qcow2'), ...[0, 64, 128].map((k) => `write -c -P 1 ${k}k 64k`));
  create('zeroed.qcow2', '1M');
  qemuIo(at('zeroed.qcow2'), 'write -z 0 1M');
  create('tail.qcow2', '2M');
  qemuIo(at('tail.qcow2'), 'write -P 1 0 1M', 'write -P 3 1500k 512');
  create('set-aside.qcow2', '1M', '-o', 'preallocation=metadata');
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'data.qcow2', '-F', 'qcow2', at('over.qcow2'));
  create('longer.qcow2', '2M', '-b', 'data.qcow2', '-F', 'qcow2');
  writeFileSync(at('written.raw'), new Uint8Array(1 << 20));
  writeFileSync(at('hole.raw'), '');
  truncateSync(at('hole.raw'), 1 << 20);
  writeFileSync(at('odd.raw'), new Uint8Array(1000).fill(1, 0, 700));
  copyFileSync(at('packed.qcow2'), at('unreadable.qcow2'));
  damage(at('unreadable.qcow2'), 0x50000, [0xff, 0xff, 0xff]);
}

const NAMES = [
  'empty.qcow2',
  'large.qcow2',
  'coarse.qcow2',
  'data.qcow2',
  'backwards.qcow2',
  'one.qcow2',
  'packed.qcow2',
  'tail.qcow2',
  'set-aside.qcow2',
  'longer.qcow2',
  'written.raw',
  'odd.raw',
];

/** What qemu-img would print, and its exit status. */
async function compareFiles(one: string, other: string, strict: boolean) {
  const disks = [await openDisk(one), await openDisk(other)] as const;
  let stdout = '';
  const onSizesDiffer = () => {
    stdout += 'Warning: Image size mismatch!\n';
  };
  const options = { strict, onSizesDiffer, progress: NO_PROGRESS };
  const found = await compareDisks(...disks, options);
  for (const disk of disks) disk.abandon();
  if (found.kind === 'same') return { status: 0, stdout: `${stdout}Images are identical.\n` };
  stdout += {
    size: 'Strict mode: Image size mismatch!\n',
    status: `Strict mode: Offset ${'offset' in found && found.offset} block status mismatch!\n`,
    content: `Content mismatch at offset ${'offset' in found && found.offset}!\n`,
  }[found.kind];
  return { status: 1, stdout };
}

/** Words that are compared as they are. */
const LINES = [
  'compare',
  'compare data.qcow2',
  'compare a b c',
  'compare data.qcow2 nothing',
  'compare nothing data.qcow2',
  'compare -p nothing data.qcow2',
  'compare -q nothing data.qcow2',
  'compare . data.qcow2',
  'compare -f raw data.qcow2 data.qcow2',
  'compare -f raw -F raw data.qcow2 data.qcow2',
  'compare -F raw data.qcow2 one.qcow2',
  'compare -f bad data.qcow2 data.qcow2',
  'compare -F bad data.qcow2 data.qcow2',
  'compare -x data.qcow2 data.qcow2',
  'compare --strict data.qcow2 data.qcow2',
  'compare -T data.qcow2 data.qcow2',
  'compare -T bad data.qcow2 data.qcow2',
  'compare -T none data.qcow2 over.qcow2',
  'compare -T writethrough data.qcow2 over.qcow2',
  'compare -s over.qcow2 data.qcow2',
  'compare -s zeroed.qcow2 empty.qcow2',
  'compare -s zeroed.qcow2 hole.raw',
  'compare -s hole.raw written.raw',
  'compare -U data.qcow2 over.qcow2',
  'compare -sqp large.qcow2 coarse.qcow2',
  'compare -p large.qcow2 empty.qcow2',
  'compare -p -s large.qcow2 empty.qcow2',
  'compare --image-opts driver=qcow2,file.filename=data.qcow2 driver=raw,file.filename=written.raw',
  'compare --image-opts -f qcow2 driver=qcow2,file.filename=data.qcow2 data.qcow2',
  'compare --image-opts data.qcow2 one.qcow2',
  'compare --object bad data.qcow2 one.qcow2',
  'compare --object secret,id=s data.qcow2 one.qcow2',
  'compare --object secret,id=s,data=x data.qcow2 one.qcow2',
  'compare unreadable.qcow2 data.qcow2',
  'compare -p data.qcow2 unreadable.qcow2',
  'compare -q data.qcow2 unreadable.qcow2',
];

describe('compare and qemu-img compare', () => {
  const temp = useTempFolder();

  it('find the same, and say and answer the same', () => {
    const tools = new BothTools(temp);
    tools.make(makeImages);
    for (const line of LINES) tools.same(line.split(' '));
  });

  it('find the same in any two images', async () => {
    makeImages(temp.path);
    for (const first of NAMES) {
      for (const second of NAMES) {
        const strict = first < second;
        const paths = [temp.at(first), temp.at(second)] as const;
        const words = strict ? ['-s', ...paths] : paths;
        const { status, stdout } = tryQemuImg('compare', ...words);
        const ours = await compareFiles(...paths, strict);
        expect(ours, words.join(' ')).to.deep.equal({ status, stdout });
      }
    }
  });

  it('end with 3 where tables cannot be read', () => {
    const tools = new BothTools(temp);
    tools.make(makeImages);
    tools.make((folder) => damage(join(folder, 'data.qcow2'), 0x30000 + 6, [2]));
    const theirs = tools.run('qemu', ['compare', 'data.qcow2', 'one.qcow2']);
    const ours = tools.run('ours', ['compare', 'data.qcow2', 'one.qcow2']);
    expect(ours.status).to.equal(theirs.status).and.to.equal(3);
    // QEMU's block layer has a line of its own before that.
    expect(theirs.stderr).to.match(new RegExp(`${ours.stderr}$`));
  });
});
