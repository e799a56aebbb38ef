/**
 * `create` and `measure`, line by line on QEMU's qemu-img and on ours: what they print, how they end, and
 * the images that they make.
 */
import { expect } from 'chai';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expectSame } from '../helpers/command-lines.js';
import { AES_OPTIONS, makeLuksImage } from '../helpers/encrypted.js';
import { encryptedName, SECRET } from '../helpers/image-words.js';
import { runInProcess } from '../helpers/in-process.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';
import {
  BACKING_AND_DATA_FILES,
  ENCRYPTION,
  KEY_SLOT_LINES,
  LAYOUTS,
  OBJECTS,
  SIZES_AND_OPTIONS,
  WORDS,
} from './create-lines.js';
import { MEASURE_IMAGES, MEASURE_SIZES, NOTATIONS } from './measure-lines.js';

describe('create, measure by the words of qemu-img', () => {
  const temp = useTempFolder();
  let template = '';

  beforeEach(() => {
    template = temp.at('template');
    mkdirSync(join(template, 'dir'), { recursive: true });
    qemuImg('create', '-q', '-f', 'raw', join(template, 'base.raw'), '128k');
    qemuImg('create', '-q', '-f', 'qcow2', join(template, 'base.q'), '3M');
    writeFileSync(join(template, 'small'), 'hello\n');
    writeFileSync(join(template, 'base64'), 'YW\nJj\n\nZA==\n');
    writeFileSync(join(template, 'base64-nul'), 'YWJj\0');
  });

  let runs = 0;
  const same = (lines: string) => expectSame(lines, template, temp.at(`runs${runs++}`));

  it('create: sizes and options', () => same(SIZES_AND_OPTIONS));
  it('create: backing files, data files, names, help', () => same(BACKING_AND_DATA_FILES));
  it('create: layouts, targets that are there', () => same(LAYOUTS));
  it('create, measure: words', async () => {
    const at = (name: string) => join(template, name);
    qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.q', '-F', 'qcow2', at('mid.q'), '2M');
    qemuImg('create', '-q', '-f', 'qcow2', '-u', '-b', 'gone', '-F', 'qcow2', at('broken.q'), '2M');
    qemuImg('create', '-q', '-f', 'qcow2', '-u', '-b', 'small', '-F', 'qcow2', at('wrong.q'), '2M');
    await same(WORDS);
    await same(OBJECTS);
  });

  it('encrypted images, by many commands', async () => {
    const how = ['-o', 'encrypt.format=aes,encrypt.key-secret=s'];
    const secret = ['--object', 'secret,id=s,data=abc'];
    qemuImg('create', '-q', ...secret, '-f', 'qcow2', ...how, join(template, 'aes.q'), '1M');
    await same(ENCRYPTION);
  });

  it('key slots of encrypted images', async () => {
    const at = (name: string) => join(template, name);
    const aes = ['-f', 'qcow2', '-o', AES_OPTIONS, at('aes.q'), '1M'];
    qemuImg('create', '-q', ...SECRET, ...aes);
    await makeLuksImage(at('one.q'), 1 << 20);
    copyFileSync(at('one.q'), at('two.q'));
    const add = 'encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10';
    const objects = [...SECRET, '--object', 'secret,id=n,data=new'];
    const words = ['amend', ...objects, '-o', add, '--image-opts', encryptedName('two.q')];
    const result = await runInProcess(words, template);
    expect(result).to.deep.equal({ status: 0, stdout: '', stderr: '' });
    await same(KEY_SLOT_LINES);
  });

  it('measure: notations of sizes', () => expectSame(NOTATIONS, template));
  it('measure: sizes and options', () => expectSame(MEASURE_SIZES, template));

  it('measure: images', async () => {
    makeImages(template);
    await expectSame(MEASURE_IMAGES, template);
  });
});

/** Images with all kinds of clusters. */
function makeImages(folder: string): void {
  const at = (name: string) => join(folder, name);
  const make = (name: string, options: string, ...words: string[]) =>
    qemuImg(
      'create',
      '-q',
      '-f',
      'qcow2',
      '-o',
      options,
      ...words.slice(0, -1),
      at(name),
      words.at(-1)!,
    );
  make('full.q', 'cluster_size=64k', '10M');
  qemuIo(at('full.q'), 'write 0 1M', 'write -z 2M 1M', 'write 5000k 4k');
  qemuImg('snapshot', '-c', 's1', at('full.q'));
  qemuImg('resize', '-q', '--shrink', at('full.q'), '8M');
  qemuImg('snapshot', '-c', 'small', at('full.q'));
  qemuImg('resize', '-q', at('full.q'), '12M');
  qemuIo(at('full.q'), 'write 11M 300k', 'discard 0 128k');
  qemuImg('bitmap', '--add', at('full.q'), 'one');
  qemuImg('bitmap', '--add', '-g', '512', '--disable', at('full.q'), 'another-name');
  make('over.q', 'cluster_size=4k', '-b', 'full.q', '-F', 'qcow2', '13M');
  qemuIo(at('over.q'), 'write 3M 10k', 'write -z 64k 64k', 'write 12700k 100k');
  make('v2.q', 'compat=0.10,cluster_size=1k', '-b', 'base.raw', '-F', 'raw', '3M');
  qemuIo(at('v2.q'), 'write 100k 3k', 'write 2M 1k');
  make('packed.q', 'cluster_size=64k', '4M');
  qemuIo(at('packed.q'), 'write -c 0 128k', 'write -c 1M 64k', 'write 3M 64k');
  make('sub.q', 'extended_l2=on,cluster_size=64k', '4M');
  qemuIo(at('sub.q'), 'write 2k 2k', 'write 70k 10k', 'write -z 1M 6k');
  make('prealloc.q', 'preallocation=metadata', '20M');
  qemuIo(at('prealloc.q'), 'write 1M 100k', 'write 9M 1k');
  qemuImg('create', '-q', '-f', 'raw', at('sparse.raw'), '10M');
  qemuIo(at('sparse.raw'), 'write 1M 100k', 'write 5M 4k', 'write 9999k 1k');
}
