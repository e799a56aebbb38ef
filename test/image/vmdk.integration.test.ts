/** VMDK images of every kind: what qemu-img makes, and what it reads of those that it does not make. */
import { mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { openImage } from '#src/image/open.js';
import { expectImageError } from '../helpers/errors.js';
import { cowd, seSparse, vmdkDescriptor } from '../helpers/foreign-images.js';
import { runInProcess } from '../helpers/in-process.js';
import { qemuImg, qemuRead, tryQemuImg, tryQemuIo } from '../helpers/qemu.js';
import { pattern } from '../helpers/random.js';
import { readDisk, readImage, withImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

const SECTOR = 512;
const GIB = 2 ** 30;

describe('VMDK images', () => {
  const temp = useTempFolder();

  /** Expects both tools to say the same of the same command line, in the test's folder. */
  async function same(...words: string[]): Promise<void> {
    const saved = process.cwd();
    process.chdir(temp.path);
    const { status, stdout, stderr } = tryQemuImg(...words);
    process.chdir(saved);
    const ours = await runInProcess(words, temp.path);
    expect(ours, words.join(' ')).to.deep.equal({ status, stdout, stderr });
  }

  async function sameEverything(name: string): Promise<void> {
    for (const output of ['human', 'json']) {
      await same('info', `--output=${output}`, name);
      await same('map', `--output=${output}`, name);
      await same('check', `--output=${output}`, name);
      await same('measure', `--output=${output}`, '-O', 'qcow2', name);
    }
    if (name !== 'b.vmdk') await same('check', '-r', 'all', name);
    const [ours, theirs] = [temp.at('ours.raw'), temp.at('theirs.raw')];
    await runInProcess(['convert', '-O', 'raw', name, ours], temp.path);
    qemuImg('convert', '-O', 'raw', temp.at(name), theirs);
    expect(qemuImg('compare', '-f', 'raw', '-F', 'raw', ours, theirs)).to.match(/identical/);
    await same('compare', '-F', 'raw', name, 'theirs.raw');
  }

  function write(name: string, ...writes: readonly string[]): void {
    const words = writes.flatMap((one) => ['-c', one]);
    expect(tryQemuIo('-f', 'vmdk', ...words, temp.at(name)).status).to.equal(0);
  }

  for (const subformat of ['monolithicFlat', 'twoGbMaxExtentSparse', 'twoGbMaxExtentFlat']) {
    it(`${subformat}: all that is told, and read`, async () => {
      qemuImg(
        'create',
        '-q',
        '-f',
        'vmdk',
        '-o',
        `subformat=${subformat}`,
        temp.at('d.vmdk'),
        '5G',
      );
      const [edge, later] = [2 * GIB - (1 << 20), 3 * GIB];
      write('d.vmdk', 'write -P 1 0 70k', `write -P 2 ${edge} 2M`, `write -z ${later} 64k`);
      await sameEverything('d.vmdk');
      // From elsewhere, extents are found beside their descriptor, and so they are below an image.
      await same('map', temp.at('d.vmdk'));
      qemuImg('create', '-q', '-f', 'qcow2', '-b', temp.at('d.vmdk'), '-F', 'vmdk', temp.at('top'));
      await same('map', '--output=json', 'top');
      withImage(temp.at('d.vmdk'), ({ image: { disk } }) => {
        const { size } = disk;
        expect(size).to.equal(5 * GIB);
        expect(disk.seek(1 << 20, false)).to.equal(edge);
      });
    });
  }

  for (const options of ['zeroed_grain=on', 'compat6=on', 'adapter_type=lsilogic,hwversion=7']) {
    it(`${options}: the same`, async () => {
      qemuImg('create', '-q', '-f', 'vmdk', '-o', options, temp.at('d.vmdk'), '8M');
      write('d.vmdk', 'write -P 1 0 1M', 'write -z 128k 64k', 'write -z 4M 1M');
      await sameEverything('d.vmdk');
    });
  }

  it('a disk that lies over another, by its name and its content ID', async () => {
    const how = ['create', '-q', '-f', 'vmdk'];
    qemuImg(...how, '-o', 'subformat=twoGbMaxExtentSparse', temp.at('base.vmdk'), '3G');
    write('base.vmdk', 'write -P 1 0 200k', 'write -P 2 2G 1M');
    const over = ['-b', 'base.vmdk', '-F', 'vmdk', temp.at('top.vmdk')];
    qemuImg(...how, '-o', 'subformat=twoGbMaxExtentSparse', ...over);
    write('top.vmdk', 'write -P 3 64k 5k', `write -P 4 ${2 * GIB - 4096} 8k`);
    await sameEverything('top.vmdk');
    await same('info', '--backing-chain', 'top.vmdk');
    // The base is changed, and with it the ID that the disk knows it by.
    write('base.vmdk', 'write -P 9 1M 64k');
    await same('info', '--backing-chain', 'top.vmdk');
    await same('map', 'top.vmdk');
    await same('check', 'top.vmdk');
    expect(tryQemuImg('convert', '-O', 'raw', temp.at('top.vmdk'), temp.at('raw')).status).to.equal(
      1,
    );
    const converted = await runInProcess(['convert', '-O', 'raw', 'top.vmdk', 'raw'], temp.path);
    expect(converted.status).to.equal(1);
    expect(converted.stderr).to.match(/^qemu-img: error while reading at byte 0: Invalid argument/);
    // What it has itself can be read all the same.
    withImage(temp.at('top.vmdk'), ({ image: { disk } }) => {
      expect(readDisk(disk, 65536, 5120).every((byte) => byte === 3)).to.equal(true);
      expectImageError('EINVAL', /parentCID/, () => readDisk(disk, 0, 512));
    });
  });

  it('extents of ESX, and of ESXi, and a flat one of VMFS in a file with others', async () => {
    const grain = pattern(7, 4096);
    temp.write('esx.vmdk', cowd(4096, grain));
    temp.write('se.vmdk', seSparse(8192, grain));
    temp.write('flat.bin', pattern(3, 128 * SECTOR));
    temp.write('a.vmdk', vmdkDescriptor('vmfsSparse', ['RW 4096 VMFSSPARSE "esx.vmdk"']));
    temp.write('b.vmdk', vmdkDescriptor('seSparse', ['RW 8192 SESPARSE "se.vmdk"']));
    temp.write('c.vmdk', vmdkDescriptor('vmfs', ['RW 128 VMFS "flat.bin"']));
    const both = [
      'RW 64 FLAT "flat.bin" 64\r',
      ' RW 4096 SPARSE  "esx.vmdk"',
      'RW 32 FLAT "flat.bin" 0',
    ];
    temp.write('d.vmdk', vmdkDescriptor('monolithicFlat', both));
    for (const name of ['a.vmdk', 'b.vmdk', 'c.vmdk', 'esx.vmdk']) await sameEverything(name);
    await same('map', 'd.vmdk');
    const read = readImage(temp.at('d.vmdk'));
    expect(read.equals(qemuRead(temp.at('d.vmdk')))).to.equal(true);
    expect(read.length).to.equal((64 + 4096 + 32) * SECTOR);
  });

  it('damage to tables is found by check as QEMU finds it', async () => {
    qemuImg('create', '-q', '-f', 'vmdk', temp.at('d.vmdk'), '10M');
    write('d.vmdk', 'write 0 10M');
    const bytes = readFileSync(temp.at('d.vmdk'));
    truncateSync(temp.at('d.vmdk'), 5 << 20);
    await same('check', 'd.vmdk');
    await same('check', '--output=json', 'd.vmdk');
    writeFileSync(temp.at('d.vmdk'), bytes.subarray(0, bytes.length));
    await same('check', 'd.vmdk');
  });

  it('names that lead elsewhere: the policy is that of backing files', () => {
    const path = temp.at('in/d.vmdk');
    mkdirSync(temp.at('in'));
    temp.write('flat.bin', pattern(1, 8 * SECTOR));
    const policy = { backingRoot: temp.at('in') };
    const open = (name: string, more = {}) => {
      writeFileSync(path, vmdkDescriptor('vmfs', [`RW 8 VMFS "${name}"`]));
      return openImage(path, more);
    };
    const refused = (name: string, code: 'EPERM' | 'ENOTSUP' | 'ELOOP' | 'EINVAL', text: RegExp) =>
      expectImageError(code, text, () => open(name, policy));
    refused('../flat.bin', 'EPERM', /flat\.bin' lies outside of backing-root/);
    refused(temp.at('flat.bin'), 'EPERM', /lies outside of backing-root/);
    symlinkSync(temp.at('flat.bin'), temp.at('in/link'));
    refused('link', 'EPERM', /lies outside of backing-root/);
    refused('d.vmdk', 'ELOOP', /comes back to this one/);
    expectImageError('ENOENT', /Could not open '.*nothing': No such file/, () => open('nothing'));
    expectImageError('EPERM', /no-backing/, () => open('../flat.bin', { noBacking: true }));
    expectImageError('EINVAL', /requires '\/dev\/null' to be a regular file/, () =>
      open('/dev/null'),
    );
    // Beside no folder, it would be a protocol's.
    const saved = process.cwd();
    process.chdir(temp.at('in'));
    try {
      writeFileSync(path, vmdkDescriptor('vmfs', ['RW 8 VMFS "nbd:localhost:1"']));
      expectImageError('ENOTSUP', /protocol 'nbd:' is not supported/, () => openImage('d.vmdk'));
    } finally {
      process.chdir(saved);
    }
  });

  it('descriptors that say what is not known, or nothing: clear errors', () => {
    const path = temp.at('d.vmdk');
    temp.write('flat.bin', pattern(1, 8 * SECTOR));
    const cases: [string, 'EINVAL' | 'ENOTSUP' | 'EFBIG' | 'EIO', RegExp][] = [
      [
        vmdkDescriptor('custom', []),
        'ENOTSUP',
        /Unsupported image type 'custom' .*twoGbMaxExtentFlat/,
      ],
      [vmdkDescriptor('vmfs', []), 'EINVAL', /names no extent/],
      ['version=1\n', 'EINVAL', /invalid VMDK image descriptor/],
      [
        vmdkDescriptor('vmfs', ['RW 8 FLAT "flat.bin"']),
        'EINVAL',
        /Invalid extent line: RW 8 FLAT/,
      ],
      [vmdkDescriptor('vmfs', ['RW 8 VMFS "flat.bin" 8']), 'EINVAL', /Invalid extent line/],
      [vmdkDescriptor('vmfs', ['RW 8 FLAT "flat.bin" -1']), 'EINVAL', /Invalid extent line/],
      [vmdkDescriptor('vmfs', ['RW 0 VMFS "flat.bin"']), 'EINVAL', /Invalid extent line/],
      [vmdkDescriptor('vmfs', [`RW ${2 ** 60} VMFS "flat.bin"`]), 'EINVAL', /Invalid extent line/],
      [vmdkDescriptor('vmfs', ['RW 8 ZERO']), 'ENOTSUP', /type ZERO are not supported/],
      [vmdkDescriptor('vmfs', ['RW 8 VMFSRDM "x"']), 'ENOTSUP', /type VMFSRDM .*supported: FLAT/],
      [vmdkDescriptor('vmfs', ['RDONLY 8 VMFS "flat.bin"']), 'ENOTSUP', /access RDONLY/],
      [vmdkDescriptor('vmfs', ['RW 8 SPARSE "flat.bin"']), 'EINVAL', /Image not in VMDK format/],
      [vmdkDescriptor('vmfs', ['RW 8 SESPARSE "flat.bin"']), 'EINVAL', /Bad const header magic/],
      [vmdkDescriptor('vmfs', Array(3000).fill('RW 8 VMFS "flat.bin"')), 'EFBIG', /at most 2048/],
      [
        vmdkDescriptor(
          'vmfs',
          ['RW 8 VMFS "flat.bin"'],
          `parentFileNameHint="${'x'.repeat(1024)}"\n`,
        ),
        'EINVAL',
        /longer than 1023/,
      ],
    ];
    for (const [text, code, message] of cases) {
      writeFileSync(path, text);
      expectImageError(code, message, () => openImage(path, { format: 'vmdk' }));
    }
  });

  it('is known by its magic, or by the first lines of a descriptor', async () => {
    const starts = [
      'COWD',
      '# Disk Desc\n \r\nversion=3\n',
      '#\nversion=4\n',
      'version=2\r\n',
      ' x\nversion=1\n',
    ];
    for (const start of starts) {
      temp.write('probed', `${start}${'\n'.repeat(600)}`);
      const theirs = tryQemuImg('info', temp.at('probed'));
      const ours = await runInProcess(['info', 'probed'], temp.path);
      expect(ours.status, start).to.equal(theirs.status);
    }
  });
});
