/** qcow images of version 1 that are made and written to: held against QEMU's tools, both ways. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { KeyRing } from '#src/image/crypto/key-ring.js';
import { openImage } from '#src/image/open.js';
import { DiskRequests } from '#src/tools/disk-requests.js';
import { openDisk } from '#src/tools/open-disk.js';
import { expectImageError } from '../helpers/errors.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { runInProcess } from '../helpers/in-process.js';
import { noMounts, useSandbox } from '../helpers/mount.js';
import { put } from '../helpers/mount-write.js';
import { qemuImg, tryQemuIo } from '../helpers/qemu.js';
import { pattern, printSeed, Random, SEED } from '../helpers/random.js';
import { readImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

const SIZE = 6 << 20;
const SECRET = ['--object', 'secret,id=s,data=key'];
const AES = ['-o', 'encrypt.format=aes,encrypt.key-secret=s'];
const KINDS = ['plain', 'over a backing file', 'encrypted'] as const;
type Kind = (typeof KINDS)[number];

describe('qcow images that are written to', () => {
  const temp = useTempFolder();
  printSeed();

  /** Half of it compressed already, where it holds such clusters. */
  function make(kind: Kind): string {
    const path = temp.at('theirs');
    const source = temp.write(
      'source',
      Buffer.concat([pattern(1, SIZE / 2), Buffer.alloc(SIZE / 2)]),
    );
    if (kind === 'over a backing file') {
      qemuImg('create', '-q', '-f', 'qcow', '-b', source, '-F', 'raw', path, String(SIZE));
    } else if (kind === 'encrypted') {
      qemuImg('convert', ...SECRET, '-f', 'raw', '-O', 'qcow', ...AES, source, path);
    } else {
      // QEMU 7.2 ends with 1 where it has compressed to qcow; the image is whole.
      spawnSync('qemu-img', ['convert', '-c', '-f', 'raw', '-O', 'qcow', source, path]);
    }
    return path;
  }

  const nameOf = (path: string) => `driver=qcow,file.filename=${path},encrypt.key-secret=s`;

  for (const kind of KINDS) {
    it(`${kind}: QEMU reads what was written, and goes on`, async () => {
      const random = new Random(SEED);
      const ours = make(kind);
      const keys = new KeyRing({ passphrases: [Buffer.from('key')] });
      const spec = { path: ours, filename: ours, format: 'qcow', keys };
      const disk = await openDisk(spec, { writable: true });
      const requests = new DiskRequests(disk);
      const truth = readFileSync(temp.at('source'));
      for (let n = 1; n <= 40; n++) {
        const cluster = n % 5 === 0 && kind === 'plain';
        const unit = cluster ? 4096 : n % 3 === 0 ? 1 : 512;
        const offset = random.below(SIZE / unit) * unit;
        const length = cluster ? 4096 : Math.min(SIZE - offset, 1 + random.below(90_000));
        truth.fill(n % 7 === 0 ? 0 : n, offset, offset + length);
        if (n % 7 === 0) {
          requests.writeZeroes(offset, length, { unmap: false, noFallback: false });
          continue;
        }
        const fill = (bytes: Buffer) => void bytes.fill(n);
        if (cluster) await requests.writeCompressed(offset, length, fill);
        else requests.write(offset, length, fill);
        if (n % 10 === 0) disk.writer.flush();
      }
      disk.close();
      const written = temp.write('truth', truth);
      const named = kind === 'encrypted' ? nameOf(ours) : `driver=qcow,file.filename=${ours}`;
      const images = ['--image-opts', named, `driver=raw,file.filename=${written}`];
      expect(qemuImg('compare', ...SECRET, ...images)).to.match(/identical/);
      expect(
        tryQemuIo(...SECRET, '-c', 'write -P 9 1M 100k', '--image-opts', named).status,
      ).to.equal(0);
      truth.fill(9, 1 << 20, (1 << 20) + (100 << 10));
      const again = await openDisk(spec);
      const target = new IoBuffer(SIZE);
      again.read(0, SIZE, target, 0);
      again.abandon();
      expect(target.bytes.equals(truth), 'as QEMU went on').to.equal(true);
    });
  }

  it('is made: byte by byte what QEMU makes, or refused in its words', async () => {
    const base = temp.write('base', pattern(1, 100_000));
    const options = [
      ['1000000'],
      ['1'],
      ['0'],
      ['-o', 'cluster_size=4k', '1M'],
      ['-b', base, '-F', 'raw'],
      ['-u', '-b', 'none', '-F', 'raw', '3G'],
      ['-o', 'encryption=on', '1M'],
      [...SECRET, ...AES, '1M'],
      [...SECRET, '-o', 'encryption=on,encrypt.key-secret=s', '1M'],
      [...SECRET, '-o', 'encrypt.format=luks,encrypt.key-secret=s', '1M'],
      [...SECRET, '-o', 'encrypt.format=none,encrypt.key-secret=s', '1M'],
      [...AES, '1M'],
      ['-o', 'encrypt.format=aes', '1M'],
      ['-o', 'preallocation=falloc', '1M'],
      ['-o', 'preallocation=metadata', '1M'],
      ['-o', 'help'],
    ];
    for (const words of options) {
      const at = words.findIndex((word) => /^[0-9]/.test(word));
      const place = at < 0 ? words.length : at;
      const whole = ['create', '-f', 'qcow', ...words.toSpliced(place, 0, 'made')];
      const { status, stdout, stderr } = spawnSync('qemu-img', whole, {
        cwd: temp.path,
        encoding: 'utf8',
      });
      const image = existsSync(temp.at('made')) ? readFileSync(temp.at('made')) : null;
      rmSync(temp.at('made'), { force: true });
      const ours = await runInProcess(whole, temp.path);
      expect(ours, whole.join(' ')).to.deep.equal({ status, stdout, stderr });
      if (image !== null && status === 0) {
        expect(readFileSync(temp.at('made')).equals(image), whole.join(' ')).to.equal(true);
      }
      rmSync(temp.at('made'), { force: true });
    }
  });

  it('refuses what qemu-img refuses, in its words', async () => {
    const path = temp.at('image');
    const other = temp.write('other', pattern(2, 1 << 20));
    qemuImg('create', '-q', '-f', 'qcow', '-b', other, '-F', 'raw', path, '1M');
    for (const words of [
      ['resize', path, '2M'],
      ['check', path],
      ['check', '-r', 'all', path],
      ['amend', '-o', 'size=2M', path],
      ['amend', '-f', 'qcow', '-o', 'help'],
      ['snapshot', '-c', 'one', path],
      ['snapshot', '-d', 'one', path],
      ['snapshot', '-a', 'one', path],
      ['measure', '-O', 'qcow', path],
      ['rebase', '-u', '-b', other, '-F', 'raw', path],
      ['rebase', '-b', '', path],
    ]) {
      const { status, stdout, stderr } = spawnSync('qemu-img', words, { encoding: 'utf8' });
      const ours = await runInProcess(words, temp.path);
      expect(ours, words.join(' ')).to.deep.equal({ status, stdout, stderr });
    }
    const { status } = await runInProcess(['bitmap', '--add', path, 'bits'], temp.path);
    expect(status).to.equal(1);
  });

  it('is converted to, new or not, compressed or not', async () => {
    const bytes = Buffer.concat([
      pattern(1, 1 << 20),
      Buffer.alloc(1 << 20),
      pattern(2, 700 << 10),
    ]);
    const [source, path] = [temp.write('source', bytes), temp.at('converted')];
    for (const options of [[], ['-c'], ['-n'], ['-n', '-c'], [...SECRET, ...AES]]) {
      const words = ['convert', '-f', 'raw', '-O', 'qcow', ...options, source, path];
      expect(await runInProcess(words, temp.path)).to.deep.equal({
        status: 0,
        stdout: '',
        stderr: '',
      });
      const names = options.includes(AES[1]!)
        ? ['--image-opts', nameOf(path), `driver=raw,file.filename=${source}`]
        : ['-f', 'qcow', '-F', 'raw', path, source];
      expect(qemuImg('compare', ...SECRET, ...names), options.join(' ')).to.match(/identical/);
    }
    await runInProcess(
      ['dd', '-O', 'qcow', `if=${source}`, `of=${path}`, 'bs=64k', 'count=3'],
      '.',
    );
    expect(readImage(path, { format: 'qcow' }).equals(bytes.subarray(0, 3 << 16))).to.equal(true);
    const both = ['convert', '-c', ...SECRET, '-f', 'raw', '-O', 'qcow', ...AES, source, path];
    const { status, stdout, stderr } = spawnSync('qemu-img', both, { encoding: 'utf8' });
    expect(await runInProcess(both, temp.path)).to.deep.equal({ status, stdout, stderr });
  });

  it('is committed, and emptied; is committed to', async () => {
    const base = temp.at('base');
    const [middle, top] = [temp.at('middle'), temp.at('top')];
    writeFileSync(base, pattern(1, 1 << 20));
    qemuImg('create', '-q', '-f', 'qcow', '-b', base, '-F', 'raw', middle, '2M');
    const empty = readFileSync(middle);
    qemuImg('create', '-q', '-f', 'qcow2', '-b', middle, '-F', 'qcow', top);
    tryQemuIo('-c', 'write -P 7 1000 70k', '-c', 'write -z 1M 64k', '-f', 'qcow2', top);
    const before = readImage(top);
    const said = { status: 0, stdout: 'Image committed.\n', stderr: '' };
    expect(await runInProcess(['commit', top], temp.path)).to.deep.equal(said);
    const raw = temp.at('raw');
    qemuImg('convert', '-f', 'qcow', '-O', 'raw', middle, raw);
    expect(readFileSync(raw).equals(before)).to.equal(true);
    expect(await runInProcess(['commit', '-f', 'qcow', middle], temp.path)).to.deep.equal(said);
    expect(readFileSync(base).equals(before)).to.equal(true);
    // As QEMU leaves it: up to the end of its L1 table.
    const left = readFileSync(middle);
    expect(left.equals(empty.subarray(0, left.length)) && left.length < 1024).to.equal(true);
  });

  it('is not written to where its tables lie over each other, or are cut off', async () => {
    const path = make('plain');
    const bytes = readFileSync(path);
    const l2 = Number(bytes.readBigUInt64BE(48));
    for (const [at, value] of [
      [48, 1n << 40n],
      [48, 64n],
      [0, 0n],
    ] as const) {
      const damaged = Buffer.from(bytes);
      if (at > 0) damaged.writeBigUInt64BE(value, at);
      writeFileSync(path, at > 0 ? damaged : damaged.subarray(0, l2));
      const disk = await openDisk({ path, filename: path, format: 'qcow' }, { writable: true });
      const requests = new DiskRequests(disk);
      expectImageError('EIO', /./, () => requests.write(1 << 20, 4096, (to) => void to.fill(1)));
      disk.abandon();
    }
    const opened = () => openImage(path, { format: 'vdi', writable: true, lock: 'write' });
    expect(opened).to.throw();
  });
});

describe('a qcow image that is mounted', () => {
  const box = useSandbox();

  for (const format of ['qcow', 'qed']) {
    it(`${format}: QEMU reads what was written through the mount`, async function () {
      if (noMounts() !== null) this.skip();
      const [base, image] = [box().path('base'), box().path(`vm.${format}`)];
      const truth = Buffer.from(pattern(1, 2 << 20));
      writeFileSync(base, truth);
      qemuImg('create', '-q', '-f', format, '-b', base, '-F', 'raw', image);
      const mnt = await box().mount(image, { options: ['-o', 'rw'] });
      for (const [at, length] of [
        [0, 300_000],
        [1_000_001, 3],
        [1_500_000, 70_000],
        [1_000_000, 5_000],
      ] as const) {
        const bytes = pattern(at + 2, length);
        put(`${mnt}/vm.raw`, at, bytes);
        truth.set(bytes, at);
      }
      await box().unmount(mnt);
      qemuImg('convert', '-f', format, '-O', 'raw', image, `${image}.raw`);
      expect(readFileSync(`${image}.raw`).equals(truth)).to.equal(true);
    });
  }
});
