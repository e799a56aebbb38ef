/** Mounts of folders and of several images: they come and go, are opened late and closed early. */
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { expect } from 'chai';
import { closeImage, openImage } from '#src/image/open.js';
import { CLI, noMounts, skipSuite, until, useSandbox } from '../helpers/mount.js';
import { createImage, MIB, noise } from '../helpers/mount-images.js';
import { get, put } from '../helpers/mount-write.js';
import { qemuImg, qemuIo, tryQemuImg } from '../helpers/qemu.js';
import { TINY_SIZE, TinyImages } from '../helpers/tiny-images.js';

interface Problem {
  readonly path: string;
  readonly error: string;
  readonly errno: string;
  readonly since: string;
}

const IMAGES = 300;

describe('mount of many images', () => {
  skipSuite(noMounts);
  const box = useSandbox();
  let tiny: TinyImages;
  let source: string;

  beforeEach(() => {
    tiny = new TinyImages(box().path('template'));
    source = box().folder('source');
  });

  const mountWith = (...options: string[]) =>
    box().mount(source, { options: options.length === 0 ? [] : ['-o', options.join(',')] });
  const problemsOf = (mnt: string) =>
    JSON.parse(readFileSync(`${mnt}/.qcow2fs/errors.json`, 'utf8')) as Problem[];
  const attribute = async (path: string, name: string) =>
    (await box().must('getfattr', ['--only-values', '-n', `user.qcow2.${name}`, path])).trim();
  const daemonOf = async (mnt: string) => Number(await attribute(mnt, 'daemon-pid'));
  const openImages = (pid: number) =>
    readdirSync(`/proc/${pid}/fd`).filter((fd) => {
      try {
        const file = readlinkSync(`/proc/${pid}/fd/${fd}`);
        return file.startsWith(`${source}/`) && !statSync(file).isDirectory();
      } catch {
        return false;
      }
    }).length;
  const residentOf = (pid: number) =>
    Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))![1]) * 1024;
  const expectDisk = (path: string, number: number) =>
    expect(readFileSync(`${path}/disk.raw`).equals(tiny.disk(number)), path).to.equal(true);
  const codeOf = (body: () => unknown): string => {
    try {
      body();
      return '';
    } catch (error) {
      return (error as NodeJS.ErrnoException).code ?? String(error);
    }
  };

  it('shows hundreds of them in the shape of the folder, few of them open, in bounded memory', async () => {
    const pathOf = (n: number) => (n % 3 === 0 ? `deep/er/n${n}.qcow2` : `n${n}.img`);
    mkdirSync(`${source}/deep/er`, { recursive: true });
    for (let n = 1; n <= IMAGES; n++) tiny.write(`${source}/${pathOf(n)}`, n);
    writeFileSync(`${source}/broken.qcow2`, 'not an image at all');
    writeFileSync(`${source}/notes.txt`, 'no image');
    tiny.write(`${source}/locked.qcow2`, 0);
    const holder = openImage(`${source}/locked.qcow2`, { writable: true, lock: 'write' });
    const mnt = await mountWith('max-open=8');
    const pid = await daemonOf(mnt);
    expect(readdirSync(mnt))
      .to.have.lengthOf(IMAGES - IMAGES / 3 + 3)
      .and.not.include('notes.txt');
    expect(readdirSync(`${mnt}/deep/er`)).to.have.lengthOf(IMAGES / 3);
    await box().must('ls', ['-lR', '--ignore=*.*', mnt]);
    await box().must('find', [mnt, '-maxdepth', '1', '-type', 'd']);
    await box().must('ls', ['-l', mnt]);
    expect(openImages(pid), 'looking opens none').to.equal(0);
    let before = 0;
    for (let n = 1; n <= IMAGES; n++) {
      expectDisk(`${mnt}/${pathOf(n)}`, n);
      if (n === 60) before = residentOf(pid);
      if (n % 50 === 0) expect(openImages(pid)).to.be.at.most(8);
    }
    const grown = residentOf(pid) - before;
    process.stdout.write(
      `      resident: ${(before / MIB).toFixed(1)} MiB after 60 images, ${(grown / MIB).toFixed(1)} more after ${IMAGES}\n`,
    );
    expect(grown).to.be.below(128 * MIB);
    expect(codeOf(() => readdirSync(`${mnt}/locked.qcow2`))).to.equal('EBUSY');
    expect(codeOf(() => readdirSync(`${mnt}/broken.qcow2`))).to.equal('EIO');
    const problems = problemsOf(mnt);
    expect(problems.map(({ path, errno }) => [path, errno])).to.have.deep.members([
      ['locked.qcow2', 'EBUSY'],
      ['broken.qcow2', 'EIO'],
    ]);
    for (const { since } of problems) expect(Date.parse(since)).to.be.closeTo(Date.now(), 60_000);
    closeImage(holder.description);
    await until(
      () => codeOf(() => expectDisk(`${mnt}/locked.qcow2`, 0)) === '',
      'it is tried again',
    );
    expect(problemsOf(mnt).map(({ path }) => path)).to.deep.equal(['broken.qcow2']);
    await box().unmount(mnt);
  });

  it('tells of broken images that nobody has looked into, and changes nothing to find out', async () => {
    tiny.write(`${source}/good.qcow2`, 1);
    mkdirSync(`${source}/sub`);
    tiny.write(`${source}/sub/bad.qcow2`, 2);
    const bad = readFileSync(`${source}/sub/bad.qcow2`);
    bad.writeUInt32BE(40, 20);
    writeFileSync(`${source}/sub/bad.qcow2`, bad);
    const mnt = await mountWith('rw');
    expect(problemsOf(mnt).map(({ path }) => path)).to.deep.equal(['sub/bad.qcow2']);
    expect(openImages(await daemonOf(mnt))).to.equal(0);
    tiny.write(`${source}/sub/bad.qcow2`, 3);
    expectDisk(`${mnt}/sub/bad.qcow2`, 3);
    expect(problemsOf(mnt)).to.deep.equal([]);
  });

  it('follows files that come, go, move and change, with the right contents always', async () => {
    const mnt = await mountWith('idle=1');
    expect(readdirSync(mnt)).to.deep.equal([]);
    tiny.write(`${source}/a.qcow2`, 1);
    expectDisk(`${mnt}/a.qcow2`, 1);
    const pid = await daemonOf(mnt);
    for (let n = 2; n < 8; n++) {
      // Another file of that name, and the same file with other contents, open here or not.
      if (n % 2 === 0) {
        tiny.write(`${source}/new`, n);
        renameSync(`${source}/new`, `${source}/a.qcow2`);
      } else {
        await until(() => openImages(pid) === 0, 'it is closed when nobody uses it');
        tiny.write(`${source}/a.qcow2`, n);
      }
      expectDisk(`${mnt}/a.qcow2`, n);
    }
    const fd = openSync(`${mnt}/a.qcow2/disk.raw`, 'r');
    mkdirSync(`${source}/sub`);
    renameSync(`${source}/a.qcow2`, `${source}/sub/b.qcow2`);
    expect(existsSync(`${mnt}/a.qcow2`)).to.equal(false);
    expectDisk(`${mnt}/sub/b.qcow2`, 7);
    rmSync(`${source}/sub/b.qcow2`);
    expect(readdirSync(`${mnt}/sub`)).to.deep.equal([]);
    const bytes = Buffer.alloc(TINY_SIZE);
    readSync(fd, bytes, 0, TINY_SIZE, 0);
    expect(bytes.equals(tiny.disk(7)), 'who has it open reads on').to.equal(true);
    closeSync(fd);
    await until(() => openImages(pid) === 0, 'what is gone is closed');
    rmSync(`${source}/sub`, { recursive: true });
    expect(readdirSync(mnt)).to.deep.equal([]);
    writeFileSync(`${source}/sub`, '');
    mkdirSync(`${source}/a.qcow2`);
    tiny.write(`${source}/a.qcow2/c.img`, 9);
    expectDisk(`${mnt}/a.qcow2/c.img`, 9);
  });

  it('shows what qemu-img reads: formats, chains, keys apart, snapshots; links within the source alone', async () => {
    const raw = box().path('outside.raw');
    writeFileSync(raw, noise(3, MIB));
    for (const [name, format] of Object.entries({
      'a.vmdk': 'vmdk',
      'b.vdi': 'vdi',
      'c.qed': 'qed',
    })) {
      qemuImg('convert', '-O', format, raw, `${source}/${name}`);
    }
    qemuImg(
      'convert',
      '-O',
      'qcow2',
      '-c',
      '-o',
      'compression_type=zstd',
      raw,
      `${source}/z.qcow2`,
    );
    qemuImg('create', '-f', 'qcow2', '-b', 'z.qcow2', '-F', 'qcow2', `${source}/top.qcow2`);
    qemuIo(`${source}/top.qcow2`, 'write -P 7 64k 64k');
    qemuImg('snapshot', '-c', 'one', `${source}/top.qcow2`);
    copyFileSync(raw, `${source}/plain.raw`);
    symlinkSync('top.qcow2', `${source}/link.qcow2`);
    symlinkSync(raw, `${source}/out.raw`);
    symlinkSync('.', `${source}/loop`);
    const mnt = await mountWith();
    const images = ['a.vmdk', 'b.vdi', 'c.qed', 'link.qcow2', 'plain.raw', 'top.qcow2', 'z.qcow2'];
    expect(readdirSync(mnt)).to.have.members(images);
    for (const name of images) {
      const compared = tryQemuImg('compare', '-U', `${source}/${name}`, `${mnt}/${name}/disk.raw`);
      expect(compared.status, compared.stderr).to.equal(0);
    }
    expect(readdirSync(`${mnt}/top.qcow2/disk.snapshots`)).to.include('one.raw');
    expect(await attribute(`${mnt}/top.qcow2`, 'snapshots')).to.equal('1');
    expect(statSync(`${mnt}/top.qcow2/top.raw`).size).to.equal(MIB);
    await box().must('df', [mnt, `${mnt}/top.qcow2`]);
  });

  it('shows several sources under their names, and nothing of the mount point within one', async () => {
    tiny.write(`${source}/a.qcow2`, 1);
    const other = await createImage(box(), 'other.qcow2', MIB);
    const target = box().folder('source/mnt');
    await box().must(process.execPath, [CLI, source, other, target]);
    expect(readdirSync(target)).to.have.members(['source', 'other.qcow2']);
    expect(readdirSync(`${target}/source`)).to.deep.equal(['a.qcow2']);
    expectDisk(`${target}/source/a.qcow2`, 1);
    expect(statSync(`${target}/other.qcow2/disk.raw`).size).to.equal(MIB);
    rmSync(other);
    expect(readdirSync(target)).to.deep.equal(['source']);
    await box().unmount(target);
  });

  it('does not look into mounts of this program: two that do would wait for each other', async () => {
    tiny.write(`${source}/a.qcow2`, 1);
    const [one, other] = [box().folder('source/one'), box().folder('source/other')];
    for (const target of [one, other]) await box().must(process.execPath, [CLI, source, target]);
    for (const target of [one, other]) {
      expect(await box().must('find', [target, '-mindepth', '1', '-maxdepth', '1'])).to.equal(
        `${target}/a.qcow2\n`,
      );
      expect(problemsOf(target)).to.deep.equal([]);
    }
    for (const target of [one, other]) await box().unmount(target);
    expect(readdirSync(await mountWith())).to.have.members(['a.qcow2', 'one', 'other']);
  });

  it('mounts more sources than their names have room, and tells whole texts of many', async () => {
    const long = (n: number) => `${source}/${String(n).padStart(200, 'x')}.qcow2`;
    const paths = Array.from({ length: 60 }, (_, n) => long(n));
    for (const [n, path] of paths.entries()) {
      if (n === 0) tiny.write(path, n);
      else writeFileSync(path, 'broken');
    }
    const mnt = box().folder();
    await box().must(process.execPath, [CLI, ...paths, mnt]);
    expect(box().mounts().at(-1)!.source).to.equal(`${paths[0]} and 59 more`);
    expect(readdirSync(mnt)).to.have.length(60);
    expect(problemsOf(mnt)).to.have.length(59);
    await box().unmount(mnt);
  });

  it('tries keys on all, and opens what its user may', async () => {
    const options = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10';
    const words = ['--object', 'secret,id=s,data=right', '-f', 'qcow2', '-o', options];
    qemuImg('create', ...words, `${source}/a.qcow2`, '1M');
    chmodSync(`${source}/a.qcow2`, 0o666);
    tiny.write(`${source}/private.qcow2`, 1);
    chmodSync(`${source}/private.qcow2`, 0o600);
    writeFileSync(box().path('key'), 'right', { mode: 0o600 });
    const mnt = await mountWith('rw', 'user=nobody', `key-file=${box().path('key')}`);
    put(`${mnt}/a.qcow2/disk.raw`, 0, noise(1, 4096));
    expect(codeOf(() => readdirSync(`${mnt}/private.qcow2`))).to.equal('EACCES');
    expect(problemsOf(mnt).map(({ path }) => path)).to.deep.equal(['private.qcow2']);
    await box().unmount(mnt);
  });

  it('refuses what does not go with many images, or with one', async () => {
    const one = await createImage(box(), 'vm.qcow2', MIB);
    const mnt = box().folder();
    const twin = box().folder('twin/source');
    const cases: [readonly string[], RegExp][] = [
      [[source, mnt, '-o', 'overlay'], /option 'overlay': not with many images/],
      [[source, mnt, '-o', 'snapshot=x'], /option 'snapshot': not with many images/],
      [[one, mnt, '-o', 'idle=5'], /option 'idle': only with many images/],
      [[source, mnt, '-o', 'max-open=0'], /option 'max-open': not a number: '0'/],
      [[source, twin, mnt], /two of the sources are called 'source'/],
      [[source, source], /would hide/],
      [[source, one], /is not a directory/],
    ];
    for (const [words, expected] of cases) {
      const { status, stderr } = await box().cli(words);
      expect(stderr).to.match(expected);
      expect(status).to.equal(1);
    }
  });

  it('serves parallel readers with fewer open than they want, and says when all are in use', async () => {
    for (let n = 1; n <= 24; n++) tiny.write(`${source}/n${n}.qcow2`, n);
    const mnt = await mountWith('max-open=4', 'workers=3');
    const all =
      'for i in 1 2; do for n in $(seq 1 24); do cat "$0/n$n.qcow2/disk.raw"; done; done | md5sum';
    const readers = [1, 2, 3].map(() => box().script(all, [mnt]));
    const sums = (await Promise.all(readers)).map(({ status, stdout, stderr }) => {
      expect({ status, stderr }).to.deep.equal({ status: 0, stderr: '' });
      return stdout;
    });
    expect(new Set(sums).size).to.equal(1);
    const files = [1, 2, 3, 4].map((n) => openSync(`${mnt}/n${n}.qcow2/disk.raw`, 'r'));
    expect(codeOf(() => openSync(`${mnt}/n5.qcow2/disk.raw`, 'r'))).to.equal('ENFILE');
    expect(problemsOf(mnt)).to.deep.equal([]);
    closeSync(files.pop()!);
    expectDisk(`${mnt}/n5.qcow2`, 5);
    for (const fd of files) closeSync(fd);
  });

  it('writes to each, closing it between, with snapshots by touch and by the image’s path', async () => {
    const names = ['a.qcow2', 'b.qcow2'];
    for (const name of names) qemuImg('create', '-f', 'qcow2', `${source}/${name}`, '8M');
    copyFileSync(box().path('template.raw'), `${source}/plain.img`);
    const mnt = await mountWith('rw', 'max-open=1');
    const last = new Map<string, Buffer>();
    for (let round = 1; round <= 3; round++) {
      for (const [index, name] of names.entries()) {
        const bytes = noise(round * 2 + index, MIB);
        put(`${mnt}/${name}/disk.raw`, MIB, bytes);
        // Two that are kept, and one that is not: views keep their numbers while others open and close.
        writeFileSync(`${mnt}/${name}/disk.snapshots/s${round}.raw`, '');
        if (round === 2) rmSync(`${mnt}/${name}/disk.snapshots/s1.raw`);
        last.set(name, bytes);
      }
      for (const [index, name] of names.entries()) {
        const seen = get(`${mnt}/${name}/disk.snapshots/s${round}.raw`, MIB, MIB);
        expect(seen.equals(noise(round * 2 + index, MIB)), `${name} ${round}`).to.equal(true);
      }
    }
    for (const [index, name] of names.entries()) {
      const seen = get(`${mnt}/${name}/disk.snapshots/s2.raw`, MIB, MIB);
      expect(seen.equals(noise(4 + index, MIB)), name).to.equal(true);
    }
    const { status, stderr } = await box().cli(['snapshot', '-c', 'by-path', `${source}/a.qcow2`]);
    expect({ status, stderr }).to.deep.equal({ status: 0, stderr: '' });
    await box().must(process.execPath, [CLI, 'snapshot', '-d', 's2', `${mnt}/a.qcow2`]);
    expect(
      readdirSync(`${mnt}/a.qcow2/disk.snapshots`).filter((name) => name.endsWith('.raw')),
    ).to.have.members(['s3.raw', 'by-path.raw']);
    // Nobody has stated that it is raw.
    expect(codeOf(() => openSync(`${mnt}/plain.img/disk.raw`, 'r+'))).to.equal('EROFS');
    const pid = await daemonOf(mnt);
    put(`${mnt}/b.qcow2/disk.raw`, 0, noise(99, MIB));
    process.kill(pid, 'SIGTERM');
    await until(() => !existsSync(`/proc/${pid}`), 'the end of the daemon');
    for (const name of names) {
      expect(tryQemuImg('check', `${source}/${name}`).status, name).to.equal(0);
      qemuImg('convert', '-O', 'raw', `${source}/${name}`, box().path('out.raw'));
      const disk = readFileSync(box().path('out.raw'));
      expect(disk.subarray(MIB, 2 * MIB).equals(last.get(name)!), name).to.equal(true);
      if (name === 'b.qcow2') expect(disk.subarray(0, MIB).equals(noise(99, MIB))).to.equal(true);
    }
  });

  it('lets go of an image that lies below another, or has two names, when that is opened', async () => {
    qemuImg('create', '-f', 'qcow2', `${source}/base.qcow2`, '1M');
    qemuImg('create', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', `${source}/top.qcow2`);
    linkSync(`${source}/base.qcow2`, `${source}/same.qcow2`);
    const mnt = await mountWith('rw');
    for (const name of ['base', 'top', 'same', 'base']) {
      put(`${mnt}/${name}.qcow2/disk.raw`, 0, noise(1, 4096));
    }
    const fd = openSync(`${mnt}/top.qcow2/disk.raw`, 'r');
    expect(codeOf(() => readdirSync(`${mnt}/base.qcow2`))).to.equal('EBUSY');
    closeSync(fd);
    await until(() => codeOf(() => readdirSync(`${mnt}/base.qcow2`)) === '', 'it is free again');
  });
});
