/** Images of other formats than qcow2 and raw: what QEMU has made reads the same, and is told the same. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { KeyRing } from '#src/image/crypto/key-ring.js';
import { OTHER_FORMATS } from '#src/image/format.js';
import { openImage } from '#src/image/open.js';
import { DiskRequests } from '#src/tools/disk-requests.js';
import { openDisk } from '#src/tools/open-disk.js';
import { resizeDisk } from '#src/tools/resize.js';
import { expectImageError } from '../helpers/errors.js';
import { runInProcess } from '../helpers/in-process.js';
import { qemuImg, tryQemuImg, tryQemuIo } from '../helpers/qemu.js';
import { pattern } from '../helpers/random.js';
import { readImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

interface Made {
  readonly format: string;
  readonly options?: string;
  readonly compressed?: boolean;
}

const MADE: readonly Made[] = [
  { format: 'qed' },
  { format: 'qed', options: 'cluster_size=4k,table_size=2' },
  { format: 'qcow' },
  { format: 'qcow', compressed: true },
  { format: 'vdi' },
  { format: 'vdi', options: 'static=on' },
  { format: 'vpc' },
  { format: 'vpc', options: 'force_size=on' },
  { format: 'vpc', options: 'subformat=fixed,force_size=on' },
  { format: 'vmdk' },
  { format: 'vmdk', options: 'subformat=streamOptimized' },
  { format: 'vhdx' },
  { format: 'vhdx', options: 'subformat=fixed,block_size=1M' },
];

/** Writes that make fragments, zeroes, and parts of clusters. */
const WRITES = [
  'write -P 1 0 70k',
  'write -P 2 3M 512',
  'write -P 3 1M 3k',
  'write -z 2M 128k',
  'write -P 4 5120k 300k',
  'write -P 5 6143k 1k',
];

describe('images of other formats', () => {
  const temp = useTempFolder();

  function writeTo(path: string, format: string, writes: readonly string[]): void {
    const words = writes.flatMap((write) => ['-c', write]);
    expect(tryQemuIo('-f', format, ...words, path).status).to.equal(0);
  }

  function sourceDisk(): string {
    const path = temp.at('source');
    qemuImg('create', '-q', '-f', 'raw', path, '6M');
    writeTo(path, 'raw', WRITES);
    return path;
  }

  async function same(words: readonly string[]): Promise<void> {
    const { status, stdout, stderr } = tryQemuImg(...words);
    const theirs = { status, stdout, stderr };
    expect(await runInProcess(words, temp.path), words.join(' ')).to.deep.equal(theirs);
  }

  for (const { format, options, compressed = false } of MADE) {
    it(`${format} ${options ?? ''}${compressed ? ' compressed' : ''}`, async () => {
      const [source, image] = [sourceDisk(), temp.at('image')];
      const how = options === undefined ? [] : ['-o', options];
      const words = ['convert', ...(compressed ? ['-c'] : []), '-f', 'raw', '-O', format, ...how];
      // QEMU 7.2 ends with 1 where it has compressed to qcow, and says nothing; the image is whole.
      const { stderr } = tryQemuImg(...words, source, image);
      expect(stderr).to.equal('');
      // A fixed VHD has its mark at its end, and is found where it is stated alone.
      const named = ['-f', format, image];
      for (const command of ['info', 'check']) {
        await same([command, '--output=json', ...named]);
        await same([command, ...named]);
      }
      // QEMU does not know where a VHDX image has what.
      if (format !== 'vhdx') {
        await same(['map', '--output=json', ...named]);
        await same(['map', ...named]);
      }
      const disk = readFileSync(source);
      const read = readImage(image, { format });
      // By a VHD's geometry, the disk is a little larger.
      expect(read.subarray(0, disk.length).equals(disk)).to.equal(true);
      expect(read.subarray(disk.length).every((byte) => byte === 0)).to.equal(true);
    });
  }

  for (const format of ['qed', 'qcow']) {
    it(`${format} over a backing file, and below an image`, async () => {
      const [base, middle, top] = [temp.at('base'), temp.at(`middle.${format}`), temp.at('top')];
      qemuImg('convert', '-f', 'raw', '-O', 'qcow2', sourceDisk(), base);
      qemuImg('create', '-q', '-f', format, '-b', base, '-F', 'qcow2', middle);
      writeTo(middle, format, ['write -P 9 64k 5k', 'write -P 8 4M 100k']);
      qemuImg('create', '-q', '-f', 'qcow2', '-b', middle, '-F', format, top);
      await same(['map', '--output=json', top]);
      await same(['info', middle]);
      const raw = temp.at('raw');
      qemuImg('convert', '-O', 'raw', top, raw);
      expect(readImage(top).equals(readFileSync(raw))).to.equal(true);
    });
  }

  it('QED in pieces, over several tables', async () => {
    const image = temp.at('pieces.qed');
    qemuImg('create', '-q', '-f', 'qed', '-o', 'cluster_size=4k,table_size=2', image, '8M');
    writeTo(image, 'qed', ['write 5M 8k', 'write 1M 4k', 'write 3M 8k', 'write 1028k 4k']);
    await same(['check', image]);
  });

  it('encrypted qcow, by its passphrase', async () => {
    const secret = ['--object', 'secret,id=s,data=key'];
    const [source, image] = [sourceDisk(), temp.at('encrypted')];
    const options = ['-o', 'encrypt.format=aes,encrypt.key-secret=s'];
    qemuImg('convert', ...secret, '-f', 'raw', '-O', 'qcow', ...options, source, image);
    const name = `driver=qcow,file.filename=${image},encrypt.key-secret=s`;
    await same(['compare', ...secret, '--image-opts', name, `driver=raw,file.filename=${source}`]);
    await same(['info', image]);
    for (const output of ['human', 'json']) {
      await same(['info', `--output=${output}`, ...secret, '--image-opts', name]);
    }
    await same(['map', image]);
    const keys = new KeyRing({ passphrases: [Buffer.from('key')] });
    const { description } = openImage({ path: image, filename: image, keys });
    expect(description.layers[0].format).to.equal('qcow');
  });

  it('VMDK over another VMDK image', async () => {
    const [base, top] = [temp.at('base.vmdk'), temp.at('top.vmdk')];
    qemuImg('convert', '-f', 'raw', '-O', 'vmdk', sourceDisk(), base);
    qemuImg('create', '-q', '-f', 'vmdk', '-b', base, '-F', 'vmdk', top);
    writeTo(top, 'vmdk', ['write -P 9 64k 5k']);
    await same(['map', '--output=json', top]);
    await same(['info', '--output=json', '--backing-chain', top]);
    const raw = temp.at('raw');
    qemuImg('convert', '-O', 'raw', top, raw);
    expect(readImage(top).equals(readFileSync(raw))).to.equal(true);
  });

  /** What both tools make of the same commands of qemu-io on the same image. */
  async function written(commands: readonly string[], backed: boolean): Promise<void> {
    const paths = ['theirs', 'ours'].map((name) => temp.at(`${name}.qed`));
    const base = ['-b', sourceDisk(), '-F', 'raw', paths[0]!, '6M'];
    const how = ['-f', 'qed', '-o', 'cluster_size=4k,table_size=2'];
    qemuImg('create', '-q', ...how, ...(backed ? base : base.slice(4)));
    copyFileSync(paths[0]!, paths[1]!);
    writeTo(paths[0]!, 'qed', commands);
    const disk = await openDisk(
      { path: paths[1]!, filename: 'ours', format: 'qed' },
      { writable: true },
    );
    const requests = new DiskRequests(disk);
    for (const command of commands) {
      const words = command.split(' ');
      const [offset, length] = words.slice(-2).map(Number) as [number, number];
      if (words[0] === 'truncate') resizeDisk(disk, length);
      else if (words[1] === '-P')
        requests.write(offset, length, (bytes) => bytes.fill(Number(words[2])));
      else requests.writeZeroes(offset, length, { unmap: words[1] === '-zu', noFallback: false });
      if (words[0] === 'write' && words[1] === '-P') disk.writer.flushAll();
    }
    disk.close();
    expect(qemuImg('check', paths[1]!)).to.match(/No errors were found/);
    expect(qemuImg('compare', '-f', 'qed', '-F', 'qed', ...paths)).to.match(/identical/);
    expect(qemuImg('info', paths[1]!)).to.not.match(/cleanly/);
  }

  for (const backed of [false, true]) {
    it(`QED is written to${backed ? ', over a backing file' : ''}: QEMU reads the same`, async () => {
      const commands = ['truncate 12582912'];
      for (let n = 1; n < 40; n++) {
        const [offset, length] = [
          (n * 7 * 12_800 * 13) % 12_000_256,
          n % 5 === 0 ? 204_800 : n * 512,
        ];
        commands.push(
          `write ${['-P 7', '-z', `-P ${n}`][n % 3]} ${offset - (offset % 512)} ${length}`,
        );
      }
      await written(commands, backed);
    });
  }

  it('QED is made: byte by byte what QEMU makes, or refused in its words', async () => {
    const base = sourceDisk();
    const options = [
      ['1000000'],
      ['0'],
      ['100T'],
      ['-o', 'cluster_size=3k', '1M'],
      ['-o', 'table_size=3', '1M'],
      ['-o', 'cluster_size=4k,table_size=2', '3M'],
      ['-o', 'cluster_size=64M,table_size=16', '1M'],
      ['-b', base, '-F', 'raw'],
    ];
    for (const words of options) {
      const at = words.findIndex((word) => /^[0-9]/.test(word));
      const place = at < 0 ? words.length : at;
      const whole = ['create', '-f', 'qed', ...words.toSpliced(place, 0, 'made.qed')];
      const theirs = spawnSync('qemu-img', whole, { cwd: temp.path, encoding: 'utf8' });
      const image = existsSync(temp.at('made.qed')) ? readFileSync(temp.at('made.qed')) : null;
      rmSync(temp.at('made.qed'), { force: true });
      const { status, stdout, stderr } = theirs;
      expect(await runInProcess(whole, temp.path)).to.deep.equal({ status, stdout, stderr });
      if (image !== null && status === 0) {
        expect(readFileSync(temp.at('made.qed')).equals(image), whole.join(' ')).to.equal(true);
      }
      rmSync(temp.at('made.qed'), { force: true });
    }
  });

  for (const options of [[], ['-o', 'cluster_size=4k,table_size=2']]) {
    it(`convert makes QED ${options.join(' ')}`, async () => {
      const [source, path] = [sourceDisk(), temp.at('converted.qed')];
      await runInProcess(
        ['convert', '-f', 'raw', '-O', 'qed', ...options, source, path],
        temp.path,
      );
      expect(qemuImg('compare', '-f', 'raw', '-F', 'qed', source, path)).to.match(/identical/);
      expect(qemuImg('check', path)).to.match(/No errors were found/);
    });
  }

  it('QED is rebased, and committed', async () => {
    const [base, other, top] = [temp.at('base.raw'), temp.at('other.raw'), temp.at('top.qed')];
    temp.write('base.raw', pattern(1, 2 << 20));
    temp.write('other.raw', pattern(2, 3 << 20));
    const how = ['-f', 'qed', '-o', 'cluster_size=4k,table_size=2', '-b', base, '-F', 'raw'];
    qemuImg('create', '-q', ...how, top, '3M');
    writeTo(top, 'qed', ['write -P 5 1M 10k', 'write -z 64k 8k']);
    const before = readImage(top, { format: 'qed' });
    const rebased = await runInProcess(['rebase', '-b', other, '-F', 'raw', top], temp.path);
    expect(rebased).to.deep.equal({ status: 0, stdout: '', stderr: '' });
    expect(qemuImg('info', top)).to.include(`backing file: ${other}\nbacking file format: raw`);
    expect(qemuImg('check', top)).to.match(/No errors were found/);
    const raw = temp.at('as-raw');
    qemuImg('convert', '-f', 'qed', '-O', 'raw', top, raw);
    expect(readFileSync(raw).equals(before)).to.equal(true);
    const committed = await runInProcess(['commit', top], temp.path);
    expect(committed).to.deep.equal({ status: 0, stdout: 'Image committed.\n', stderr: '' });
    expect(readFileSync(other).equals(before)).to.equal(true);
    await runInProcess(['rebase', '-u', '-b', '', top], temp.path);
    expect(qemuImg('info', top)).to.not.include('backing');
    await same(['amend', '-o', 'size=4M', top]);
    await same(['amend', '-f', 'qed', '-o', 'help']);
  });

  it('QED that grows over a longer backing file shows nothing more of that', async () => {
    const base = temp.write('long.raw', pattern(3, 2 << 20));
    const path = temp.at('short.qed');
    const options = ['-o', 'cluster_size=4k,table_size=2', '-b', base, '-F', 'raw'];
    qemuImg('create', '-q', '-f', 'qed', ...options, path, '1050112');
    const before = readImage(path, { format: 'qed' });
    const grown = await runInProcess(['resize', '-f', 'qed', path, '3M'], temp.path);
    expect(grown.status).to.equal(0);
    const raw = temp.at('grown.raw');
    qemuImg('convert', '-f', 'qed', '-O', 'raw', path, raw);
    const wanted = Buffer.concat([before, Buffer.alloc((3 << 20) - before.length)]);
    expect(readFileSync(raw).equals(wanted)).to.equal(true);
  });

  it('QED that was not closed is told of, and repaired where it is opened to be written to', async () => {
    const path = temp.at('unclean.qed');
    qemuImg('create', '-q', '-f', 'qed', path, '1M');
    writeTo(path, 'qed', ['write -P 1 0 70k']);
    const bytes = readFileSync(path);
    bytes[16]! |= 2;
    // The first entry of the L2 table leads nowhere.
    bytes.writeBigUInt64LE(1n << 40n, Number(bytes.readBigUInt64LE(65536)));
    writeFileSync(path, bytes);
    const theirs = temp.write('theirs.qed', bytes);
    await same(['info', path]);
    await same(['check', path]);
    const checked = await runInProcess(['check', '-r', 'all', path], temp.path);
    const { status, stdout, stderr } = tryQemuImg('check', '-r', 'all', theirs);
    expect(checked).to.deep.equal({ status, stdout, stderr });
    expect(readFileSync(path).equals(readFileSync(theirs))).to.equal(true);
    writeFileSync(path, bytes);
    (await openDisk(path, { writable: true })).close();
    expect(readFileSync(path).equals(readFileSync(theirs))).to.equal(true);
  });

  it('VHDX that is cut off: check finds what QEMU finds', async () => {
    const path = temp.at('cut.vhdx');
    qemuImg('create', '-q', '-f', 'vhdx', '-o', 'block_size=1M', path, '8M');
    writeTo(path, 'vhdx', ['write -P 1 0 8M']);
    writeFileSync(path, readFileSync(path).subarray(0, (12 << 20) + 512));
    await same(['check', path]);
    await same(['check', '--output=json', path]);
  });

  it('VHD with a parent is refused by the name of that', () => {
    const path = temp.at('child.vhd');
    qemuImg('create', '-q', '-f', 'vpc', path, '1M');
    const bytes = readFileSync(path);
    bytes.writeUInt32BE(4, 60);
    bytes.writeUInt32BE(0, 64);
    let sum = 0;
    for (const byte of bytes.subarray(0, 512)) sum += byte;
    bytes.writeUInt32BE(~sum >>> 0, 64);
    Buffer.from('base.vhd\0', 'utf16le')
      .swap16()
      .copy(bytes, 512 + 64);
    writeFileSync(path, bytes);
    expectImageError('ENOTSUP', /with a parent \('base\.vhd'\)/, () => openImage(path));
  });

  it('are not written to', () => {
    const others = ['qed', 'qcow', 'bochs', 'cloop'];
    for (const format of OTHER_FORMATS.filter((name) => !others.includes(name))) {
      const path = temp.at(`read-only.${format}`);
      qemuImg('create', '-q', '-f', format, path, '1M');
      expectImageError('ENOTSUP', /are read-only/, () =>
        openImage(path, { writable: true, lock: 'write' }),
      );
    }
  });
});
