/** The life of a mount: how it begins, what is refused, and every way in which it ends. */
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { expect } from 'chai';
import { findMount, serversOf } from '#src/fuse/mountinfo.js';
import { processStart } from '#src/sys/process.js';
import { CLI, noMounts, type Sandbox, skipSuite, until, useSandbox } from '../helpers/mount.js';
import {
  createImage,
  expectSame,
  MIB,
  noise,
  oracle,
  qemuIo,
  wholeOf,
  writeSparse,
} from '../helpers/mount-images.js';
import { describeTransports, withoutLimits } from '../helpers/transports.js';

async function makeImage(sandbox: Sandbox, name = 'vm.qcow2'): Promise<string> {
  const image = await createImage(sandbox, name, 4 * MIB);
  await qemuIo(sandbox, image, ['write -P 1 0 1M', 'write -P 2 3000k 5000']);
  return image;
}

/** The daemon behind a mount. */
function daemonOf(mnt: string): number {
  const [pid] = serversOf(findMount(mnt)!.minor);
  return pid!;
}

function isGone(pid: number): boolean {
  return processStart(pid) === undefined;
}

describe('qcow2fs IMAGE MOUNTPOINT', () => {
  skipSuite(noMounts);
  const box = useSandbox();

  it('returns when the mount answers, silent, with nothing of the caller held open', async () => {
    const image = await makeImage(box());
    const mnt = box().folder();
    const script = 'x=$("$0" "$1" "$2" "$3" 2>&1) && echo "[$x]" && ls "$3"';
    const words = [process.execPath, CLI, image, mnt];
    const { status, stdout } = await box().script(script, words);
    expect({ status, stdout }).to.deep.equal({
      status: 0,
      stdout: '[]\ndisk.info.json\ndisk.raw\ndisk.snapshots\n',
    });
    const pid = daemonOf(mnt);
    for (const fd of [0, 1, 2]) expect(readlinkSync(`/proc/${pid}/fd/${fd}`)).to.equal('/dev/null');
    expect(readlinkSync(`/proc/${pid}/cwd`)).to.equal('/');
    const session = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]!.split(' ')[3];
    expect(Number(session)).to.equal(pid);
    await box().unmount(mnt);
    expect(isGone(pid)).to.equal(true);
  });

  it('shows up in findmnt as what it is', async () => {
    const image = await makeImage(box());
    const mnt = await box().mount(image, { options: ['-o', 'noexec,noatime', '--ro'] });
    const mount = findMount(mnt)!;
    expect(mount).to.include({ type: 'fuse.qcow2fs', source: image, target: mnt });
    const flags = mount.options.split(',');
    expect(flags).to.include.members(['ro', 'nosuid', 'nodev', 'noexec', 'noatime']);
    expect(mount.superOptions).to.include('max_read=1048576');
  });

  it('takes relative paths, links, and names of any characters', async () => {
    const sandbox = box();
    const folder = sandbox.folder('a, b\\ c=d\n é');
    const image = await makeImage(sandbox, 'a, b\\ c=d\n é/vm #1.qcow2');
    const truth = await oracle(sandbox, image, sandbox.path('truth'));
    mkdirSync(`${folder}/mnt, 2`);
    symlinkSync('mnt, 2', `${folder}/link`);
    const cwd = folder;
    for (const target of ['mnt, 2', './link/']) {
      await sandbox.mount('vm #1.qcow2', { target, cwd });
      await expectSame(sandbox, `${folder}/mnt, 2/disk.raw`, wholeOf(truth));
      expect(existsSync(`${folder}/mnt, 2/vm #1.raw`)).to.equal(true);
      await sandbox.unmount(target, { cwd });
    }
    expect(realpathSync(image)).to.equal(image);
  });

  it('mounts the raw disk over a regular file, the image itself as well', async () => {
    const sandbox = box();
    const image = await makeImage(sandbox);
    const truth = await oracle(sandbox, image, sandbox.path('truth'));
    const before = readFileSync(image);
    const other = sandbox.path('other');
    writeFileSync(other, 'covered');
    for (const target of [other, image]) {
      await sandbox.mount(image, { target });
      await expectSame(sandbox, target, wholeOf(truth));
      expect(statSync(target).isFile()).to.equal(true);
      await sandbox.unmount(target);
    }
    expect(readFileSync(other, 'utf8')).to.equal('covered');
    expect(readFileSync(image).equals(before)).to.equal(true);
  });

  it('serves an image twice, and one mount over another', async () => {
    const sandbox = box();
    const image = await makeImage(sandbox);
    const truth = wholeOf(await oracle(sandbox, image, sandbox.path('truth')));
    const [one, two] = [await sandbox.mount(image), await sandbox.mount(image)];
    await sandbox.mount(image, { target: one });
    await Promise.all([one, two].map((mnt) => expectSame(sandbox, `${mnt}/disk.raw`, truth)));
    await sandbox.unmount(one);
    await expectSame(sandbox, `${one}/disk.raw`, truth);
  });

  it('mounts a snapshot as the disk, by name or id', async () => {
    const sandbox = box();
    const image = await makeImage(sandbox);
    const truth = wholeOf(await oracle(sandbox, image, sandbox.path('truth')));
    await sandbox.must('qemu-img', ['snapshot', '-c', 'then', image]);
    await qemuIo(sandbox, image, ['write -P 9 0 2M']);
    for (const wanted of ['then', '1']) {
      const mnt = await sandbox.mount(image, { options: [`--snapshot=${wanted}`] });
      await expectSame(sandbox, `${mnt}/disk.raw`, truth);
      expect(existsSync(`${mnt}/disk.snapshots`)).to.equal(false);
    }
  });

  it('takes format=raw at its word, and finds out by itself otherwise', async () => {
    const sandbox = box();
    const image = await makeImage(sandbox);
    const asRaw = await sandbox.mount(image, { options: ['-o', 'format=raw'] });
    await expectSame(sandbox, `${asRaw}/disk.raw`, wholeOf(image));
    const raw = sandbox.path('plain');
    writeSparse(raw, MIB + 100, [{ at: 5000, bytes: noise(1, 9000) }]);
    const mnt = await sandbox.mount(raw);
    // Disks are counted in sectors: the last, partial one is filled up with zeroes.
    expect(statSync(`${mnt}/disk.raw`).size).to.equal(MIB + 512);
    expect(await sandbox.run('cmp', ['-n', String(MIB + 100), raw, `${mnt}/disk.raw`])).to.include({
      status: 0,
    });
  });

  it('works with one worker and the smallest cache', async () => {
    const sandbox = box();
    const image = await createImage(sandbox, 'vm.qcow2', 4 * MIB, 'cluster_size=512');
    await qemuIo(sandbox, image, ['write -P 1 0 1M', 'write -P 2 3000k 5000']);
    const truth = wholeOf(await oracle(sandbox, image));
    const mnt = await sandbox.mount(image, { options: ['--workers=1', '--cache-size', '256K'] });
    const file = `${mnt}/disk.raw`;
    await Promise.all([1, 2, 3].map(() => expectSame(sandbox, file, truth)));
  });

  it('goes on when the image is removed, or replaced', async () => {
    const sandbox = box();
    const image = await makeImage(sandbox);
    const truth = wholeOf(await oracle(sandbox, image, sandbox.path('truth')));
    const mnt = await sandbox.mount(image);
    rmSync(image);
    writeFileSync(image, 'something else');
    await expectSame(sandbox, `${mnt}/disk.raw`, truth);
  });
});

describe('qcow2fs refuses to mount, with status 1 and the reason,', () => {
  skipSuite(noMounts);
  const box = useSandbox('suite');
  let image: string;
  let mnt: string;

  before(async () => {
    image = await makeImage(box());
    mnt = box().folder();
    mkdirSync(box().path('full'));
    writeFileSync(box().path('full', 'base.raw'), noise(1, 65_536));
    const base = { file: box().path('full', 'base.raw'), format: 'raw' };
    await createImage(box(), 'overlay.qcow2', MIB, '', base);
    await createImage(box(), 'full/inside.qcow2', MIB);
    symlinkSync('full/inside.qcow2', box().path('link.qcow2'));
    const options = `data_file=${box().path('full', 'data')}`;
    await createImage(box(), 'split.qcow2', MIB, options);
    const snap = await createImage(box(), 'snap.qcow2', MIB);
    await box().must('qemu-img', ['snapshot', '-c', 's', snap]);
  });

  async function expectRefused(words: readonly string[], reason: RegExp): Promise<void> {
    const { status, stdout, stderr } = await box().cli(words, { cwd: box().directory });
    expect({ status, stdout }).to.deep.equal({ status: 1, stdout: '' });
    expect(stderr)
      .to.match(/^qcow2fs: [^\n]*\n$/)
      .and.match(reason);
    expect(
      box()
        .mounts()
        .map(({ target }) => target),
    ).to.deep.equal([]);
  }
  afterEach(async () => {
    for (const { target } of box().mounts()) await box().must('umount', [target]);
  });

  const cases: readonly [string, readonly string[], RegExp][] = [
    ['a missing image', ['none.qcow2', 'mnt0'], /none\.qcow2.*No such file/],
    ['a missing mount point', ['vm.qcow2', 'none'], /mount point 'none' does not exist/],
    ['a device as the mount point', ['vm.qcow2', '/dev/null'], /no folder and no file/],
    ['an image in the mount point', ['full/inside.qcow2', 'full'], /would hide/],
    ['a link to an image in the mount point', ['link.qcow2', 'full'], /would hide/],
    ['a backing file in the mount point', ['overlay.qcow2', 'full'], /would hide/],
    ['a data file in the mount point', ['split.qcow2', 'full'], /would hide/],
    ['a log in a missing folder', ['vm.qcow2', 'mnt0', '--log=none/log'], /none\/log/],
    ['no words', [], /./],
    ['an image without a mount point', ['vm.qcow2'], /MOUNTPOINT is missing/],
    ['too many words', ['vm.qcow2', 'mnt0', 'more'], /mount point 'more' does not exist/],
    ['an unknown flag', ['vm.qcow2', 'mnt0', '--nonsense'], /unknown option '--nonsense'/],
    ['an unknown option', ['vm.qcow2', 'mnt0', '-o', 'nonsense'], /'nonsense': unknown mount/],
    [
      'rw of a snapshot',
      ['vm.qcow2', 'mnt0', '-orw,snapshot=1'],
      /'rw': snapshots are not written/,
    ],
    ['--rw, unlocked', ['vm.qcow2', 'mnt0', '--rw', '--force-share'], /'rw': .*force-share/],
    ['ro over an overlay', ['vm.qcow2', 'mnt0', '--overlay', '-oro'], /'overlay': .*not with 'ro'/],
    [
      'an unlocked overlay',
      ['vm.qcow2', 'mnt0', '-ooverlay,force-share'],
      /'overlay': .*force-share/,
    ],
    ['an unknown cache', ['vm.qcow2', 'mnt0', '-orw,cache=x'], /'cache': unknown word 'x'/],
    [
      'a file that is an overlay of another image',
      ['full/inside.qcow2', 'mnt0', '--overlay=overlay.qcow2'],
      /overlay 'overlay.qcow2' is not one of .*base\.raw/,
    ],
    [
      'a kept overlay of a snapshot',
      ['snap.qcow2', 'mnt0', '--overlay=new.qcow2', '--snapshot=s'],
      /'overlay': no file can be kept of it/,
    ],
    ['no value', ['vm.qcow2', 'mnt0', '-o', 'uid'], /'uid': needs a value/],
    ['an empty value', ['vm.qcow2', 'mnt0', '--uid='], /needs a value/],
    ['a value too many', ['vm.qcow2', 'mnt0', '-o', 'ro=1'], /'ro': takes no value/],
    ['a uid in words', ['vm.qcow2', 'mnt0', '-o', 'uid=me'], /not a number: 'me'/],
    ['a uid too large', ['vm.qcow2', 'mnt0', '-o', 'uid=4294967295'], /0 to 4294967294/],
    ['a umask that is not octal', ['vm.qcow2', 'mnt0', '-o', 'umask=8'], /0 to 777/],
    ['no workers', ['vm.qcow2', 'mnt0', '--workers=0'], /1 to 64/],
    ['too small a cache', ['vm.qcow2', 'mnt0', '-o', 'cache-size=1K'], /not a size: '1K'/],
    ['an unknown format', ['vm.qcow2', 'mnt0', '--format=luks'], /luks.*not supported/],
    ['another format', ['full/base.raw', 'mnt0', '-o', 'format=qcow2'], /base\.raw/],
    ['an unknown snapshot', ['vm.qcow2', 'mnt0', '-o', 'snapshot=x'], /no snapshot 'x'/],
    ['another file, by -o no-backing', ['overlay.qcow2', 'mnt0', '-o', 'no-backing'], /base\.raw/],
    ['another file, by --no-backing', ['overlay.qcow2', 'mnt0', '--no-backing'], /base\.raw/],
    ['a file outside of backing-root', ['overlay.qcow2', 'mnt0', '--backing-root=mnt0'], /outside/],
  ];
  for (const [name, words, reason] of cases) {
    it(name, () => expectRefused(words, reason));
    if (words.length > 2) continue;
    it(`${name}, in the foreground`, () => expectRefused([...words, '--foreground'], reason));
  }

  it('what is not a mount, when unmounting', async () => {
    const { status, stderr } = await box().cli(['umount', mnt]);
    expect(status).to.equal(1);
    expect(stderr).to.match(/^qcow2fs: nothing is mounted on/);
  });

  it('but takes each option that can be right', async () => {
    for (const words of [
      ['-o', 'ro,defaults,auto,nosuid', '-o', 'noatime'],
      ['-o', 'allow_other,default_permissions,uid=1,gid=2,umask=022'],
      ['-o', 'backing-root=/,workers=2,cache-size=1M,format=qcow2', `--log=${box().path('log')}`],
      ['--no-backing', '--allow_root'],
    ]) {
      const where = await box().mount(image, { options: words });
      expect(statSync(`${where}/disk.raw`).size).to.equal(4 * MIB);
      await box().unmount(where);
    }
  });
});

describeTransports('the end of a mount', ({ transport, itByKernel }) => {
  const box = useSandbox('test', transport);

  /** Mounts in the foreground and waits until the mount answers. */
  async function startForeground(sandbox: Sandbox, ...more: string[]) {
    const image = await makeImage(sandbox);
    const mnt = sandbox.folder();
    const words = ['--foreground', ...more, ...sandbox.transport];
    const daemon = sandbox.startCli([image, mnt, ...words]);
    await until(() => existsSync(`${mnt}/disk.raw`), 'the mount answers');
    return { daemon, mnt };
  }

  /** A process that holds a file of the mount open. */
  async function hold(sandbox: Sandbox, mnt: string) {
    const script = 'exec 3<"$0/disk.raw"; echo held; read -r -t 100 <> <(:); cat <&3 >/dev/null';
    const holder = sandbox.start('bash', ['-c', script, mnt]);
    await until(() => holder.stdout.includes('held'), 'the file is held');
    return holder;
  }

  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    (signal === 'SIGTERM' ? it : itByKernel)(
      `by ${signal} is clean: status 0, nothing mounted`,
      async () => {
        const { daemon, mnt } = await startForeground(box());
        daemon.child.kill(signal);
        const { status, stderr } = await daemon.ended();
        expect({ status, stderr: withoutLimits(stderr) }).to.deep.equal({ status: 0, stderr: '' });
        expect(findMount(mnt)).to.equal(undefined);
      },
    );
  }

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    (signal === 'SIGTERM' ? it : itByKernel)(
      `by ${signal} comes with a file held open as well, and says so`,
      async () => {
        const { daemon, mnt } = await startForeground(box());
        const holder = await hold(box(), mnt);
        daemon.child.kill(signal);
        const { status, stderr } = await daemon.ended();
        expect(status).to.equal(0);
        expect(withoutLimits(stderr)).to.match(
          new RegExp(`^qcow2fs: ${signal}: the mount is in use[^\n]*\n$`),
        );
        expect(findMount(mnt)).to.equal(undefined);
        expect(isGone(holder.pid)).to.equal(false);
      },
    );
  }

  itByKernel('by a signal while it starts leaves no mount and no process', async () => {
    const sandbox = box();
    const image = await makeImage(sandbox);
    const mnt = sandbox.folder();
    for (let delay = 20; delay <= 300; delay += 35) {
      const daemon = sandbox.startCli([image, mnt, '--foreground']);
      await new Promise((done) => setTimeout(done, delay));
      daemon.child.kill('SIGTERM');
      await daemon.ended();
      expect(findMount(mnt), `signal after ${delay} ms`).to.equal(undefined);
    }
  });

  it('by umount(8) ends the daemon by itself', async () => {
    const { daemon, mnt } = await startForeground(box());
    await box().must('umount', [mnt]);
    const { status, stderr } = await daemon.ended();
    expect({ status, stderr: withoutLimits(stderr) }).to.deep.equal({ status: 0, stderr: '' });
  });

  it('by umount -l comes when the last file is closed', async () => {
    const { daemon, mnt } = await startForeground(box());
    const holder = await hold(box(), mnt);
    await box().must('umount', ['-l', mnt]);
    expect(findMount(mnt)).to.equal(undefined);
    expect(isGone(daemon.pid)).to.equal(false);
    holder.kill('SIGKILL');
    const { status, stderr } = await daemon.ended();
    expect({ status, stderr: withoutLimits(stderr) }).to.deep.equal({ status: 0, stderr: '' });
  });

  itByKernel('by qcow2fs umount has come when that returns', async () => {
    const sandbox = box();
    const mnt = await sandbox.mount(await makeImage(sandbox));
    const pid = daemonOf(mnt);
    const start = processStart(pid);
    await sandbox.unmount(mnt);
    expect(start).to.be.a('number');
    expect(processStart(pid)).to.not.equal(start);
    expect(findMount(mnt)).to.equal(undefined);
  });

  itByKernel('by SIGKILL leaves a dead mount, which umount takes away', async () => {
    const sandbox = box();
    const image = await makeImage(sandbox);
    for (const own of [true, false]) {
      const mnt = await sandbox.mount(image);
      const pid = daemonOf(mnt);
      process.kill(pid, 'SIGKILL');
      await until(() => isGone(pid), 'the daemon is gone');
      const listed = await sandbox.run('ls', [mnt]);
      expect(listed.stderr).to.include('Transport endpoint is not connected');
      const onto = await sandbox.cli([image, mnt]);
      expect(onto.status).to.equal(1);
      expect(onto.stderr).to.match(/^qcow2fs: .*server has died/);
      if (own) await sandbox.unmount(mnt);
      else await sandbox.must('umount', [mnt]);
      expect(findMount(mnt)).to.equal(undefined);
    }
  });
});

describe('the log of a mount', () => {
  skipSuite(noMounts);
  const box = useSandbox();

  it('holds one trace line for each request with --debug', async () => {
    const sandbox = box();
    const image = await makeImage(sandbox);
    const mnt = sandbox.folder();
    const daemon = sandbox.startCli([image, mnt, '--debug']);
    await until(() => existsSync(`${mnt}/disk.raw`), 'the mount answers');
    const dd = ['iflag=direct', 'bs=4096', 'skip=3', 'count=1', 'status=none'];
    await sandbox.must('dd', [`if=${mnt}/disk.raw`, 'of=/dev/null', ...dd]);
    await sandbox.run('ls', [`${mnt}/none`]);
    await sandbox.unmount(mnt);
    const all = (await daemon.ended()).stderr.trim().split('\n');
    const lines = all.filter((line) => !/ is (served on|released from) /.test(line));
    expect(lines.length).to.equal(all.length - 2);
    for (const line of lines) {
      expect(line).to.match(/^qcow2fs: [A-Z_]+ #\d+ node \d+ .*-> (\d+ bytes|E[A-Z]+), [\d.]+ ms$/);
    }
    const count = (shape: RegExp) => lines.filter((line) => shape.test(line)).length;
    expect(count(/READ .*offset: 12288.* -> 4096 bytes/)).to.equal(1);
    expect(count(/LOOKUP .*"none" -> ENOENT/)).to.be.above(0);
    expect(new Set(lines.map((line) => /#\d+/.exec(line)![0])).size).to.equal(lines.length);
  });

  it('goes to a file where one is given, seen from where the command was called', async () => {
    const sandbox = box();
    const image = await makeImage(sandbox);
    const mnt = await sandbox.mount(image, {
      options: ['-o', 'log=messages'],
      cwd: sandbox.directory,
    });
    expect(readFileSync(sandbox.path('messages'), 'utf8')).to.equal('');
    expect(statSync(sandbox.path('messages')).mode & 0o777).to.equal(0o600);
    await sandbox.unmount(mnt);
  });

  it('can lie in the mount point: it is hidden there, and no more', async () => {
    const sandbox = box();
    const image = await makeImage(sandbox);
    const mnt = sandbox.folder();
    await sandbox.mount(image, { target: mnt, options: [`--log=${mnt}/messages`] });
    expect(existsSync(`${mnt}/messages`)).to.equal(false);
    expect(existsSync(`${mnt}/disk.raw`)).to.equal(true);
    await sandbox.unmount(mnt);
    expect(existsSync(`${mnt}/messages`)).to.equal(true);
  });
});
