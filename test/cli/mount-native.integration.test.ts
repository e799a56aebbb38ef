/** What is the transport fuse-native's own; what it has in common with the other is tested where that is. */
import {
  closeSync,
  cpSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { LIMITS } from '#src/fuse/native/mount.js';
import { lacking, skipSuite, until, useSandbox } from '../helpers/mount.js';
import { createImage, expectSame, MIB, oracle, qemuIo, wholeOf } from '../helpers/mount-images.js';
import { contentOf, get, put } from '../helpers/mount-write.js';
import { noFuseNative, withoutLimits } from '../helpers/transports.js';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
/** nobody, who has a name and nothing else */
const USER = 65534;
const WARNING = `qcow2fs: warning: ${LIMITS}\n`;

describe('a mount through fuse-native', () => {
  skipSuite(() => noFuseNative() ?? lacking('getfattr', 'setfattr', 'setpriv', 'unshare'));
  const box = useSandbox('test', 'fuse-native');

  it('says at once what it cannot do, and is shown as any other mount', async () => {
    const image = await createImage(box(), 'v,m\\.qcow2', 8 * MIB);
    const mnt = box().folder();
    const words = [image, mnt, '-o', 'rw,noatime,noexec', ...box().transport];
    expect(await box().cli(words)).to.deep.equal({ status: 0, stdout: '', stderr: WARNING });
    const shown = await box().must('findmnt', ['-rno', 'FSTYPE,SOURCE,OPTIONS', mnt]);
    expect(shown).to.match(/^fuse\.qcow2fs \S+ rw,nosuid,nodev,noexec,noatime,/);
    expect(await box().must('findmnt', ['-no', 'SOURCE', mnt])).to.equal(`${image}\n`);
    const disk = `${mnt}/disk.raw`;
    const punched = await box().run('fallocate', ['-p', '-o', '0', '-l', '4096', disk]);
    expect(punched.stderr).to.match(/unsupported|not supported/i);
    put(disk, 0, Buffer.from('x'));
    const status = JSON.parse(readFileSync(`${mnt}/.qcow2fs/status.json`, 'utf8'));
    expect(status.requests.WRITE).to.include({ count: 1, errors: 0 });
    expect(status).to.include({ workers: 1 });
    await box().unmount(mnt);
  });

  it('takes snapshots by attributes, empty values, and places far beyond 4 GiB', async () => {
    const image = await createImage(box(), 'vm.qcow2', 2 ** 43, 'cluster_size=2M');
    const mnt = await box().mount(image, { options: ['-o', 'rw'] });
    const [disk, far] = [`${mnt}/disk.raw`, 2 ** 42 + 12_345];
    const set = (name: string, value: string) =>
      box().run('setfattr', ['-n', `user.${name}`, '-v', value, mnt]);
    put(disk, far, Buffer.from('far away'));
    expect((await set('x'.repeat(200), '')).stderr).to.include('Operation not supported');
    expect(await set('qcow2.control.create', 'one')).to.include({ status: 0 });
    expect((await set('qcow2.control.delete', '')).stderr).to.include('No such file');
    put(disk, far, Buffer.from('elsewhere'));
    const open = openSync(disk, 'r');
    expect((await set('qcow2.control.revert', 'one')).stderr).to.include('busy');
    closeSync(open);
    expect(await set('qcow2.control.revert', 'one')).to.include({ status: 0 });
    expect(get(disk, far, 9).toString()).to.equal('far away\0');
    await box().unmount(mnt);
    await qemuIo(box(), image, [`read -P 0x66 ${far} 1`]);
  });

  it('traces requests, and ends with status 0', async () => {
    const image = await createImage(box(), 'vm.qcow2', MIB);
    const mnt = box().folder();
    const daemon = box().startCli([image, mnt, '--debug', ...box().transport]);
    await until(
      () => daemon.stderr.includes('GETATTR "/"') || box().mounts().length > 0,
      'mounted',
    );
    await box().must('dd', [
      `if=${mnt}/disk.raw`,
      'of=/dev/null',
      'bs=4096',
      'count=1',
      'status=none',
    ]);
    await box().unmount(mnt);
    const { status, stderr } = await daemon.ended();
    expect(status).to.equal(0);
    expect(stderr).to.match(/READ "\/disk\.raw" \d+ \d+ 0 -> \d+, [\d.]+ ms\n/);
  });

  it('is open to an ordinary user', async () => {
    const image = await createImage(box(), 'vm.qcow2', 4 * MIB);
    await qemuIo(box(), image, ['write -P 1 0 1M', 'write -P 2 3000k 5000']);
    const truth = await oracle(box(), image);
    const mnt = box().folder();
    // A node of the device that is open to all, in a mount namespace that ends with the script.
    const script = [
      'set -e',
      'mount -t tmpfs -o mode=755 qcow2fs-test /dev/shm',
      'mknod -m 666 /dev/shm/fuse c 10 229',
      'mount --bind /dev/shm/fuse /dev/fuse',
      `chown ${USER}:${USER} "$1" "$2"`,
      `as="setpriv --reuid=${USER} --regid=${USER} --clear-groups --"`,
      '$as "$3" "$4" "$1" "$2" --transport=fuse-native -o rw',
      '$as cmp "$2/disk.raw" "$5"',
      '$as sh -c \'echo hello | dd of="$0/disk.raw" conv=notrunc,fsync status=none\' "$2"',
      '! ls "$2" 2>/dev/null',
      '$as "$3" "$4" umount "$2"',
      '$as "$3" "$4" "$1" "$2" --transport=fuse-native -o allow_other 2>&1 | grep user_allow_other',
    ].join('\n');
    const words = [
      '-c',
      script,
      'sh',
      image,
      mnt,
      process.execPath,
      join(ROOT, 'dist/cli/main.js'),
    ];
    const { status, stderr } = await box().run('unshare', ['-m', 'sh', ...words, truth]);
    expect({ status, stderr: withoutLimits(stderr) }).to.deep.equal({ status: 0, stderr: '' });
    expect(contentOf(image).toString('latin1', 0, 6)).to.equal('hello\n');
  });

  it('refuses what libfuse 2 cannot do, before anything is mounted', async () => {
    const image = await createImage(box(), 'vm.qcow2', MIB);
    const [mnt, file] = [box().folder(), box().path('file')];
    writeFileSync(file, '');
    for (const [target, options, reason] of [
      [mnt, 'lazytime', /libfuse 2 does not know 'lazytime' \(transport=kernel can\)/],
      ['/proc', 'ro', /'\/proc' is a mount already/],
      [file, 'ro', /file' is a file: it mounts on folders alone/],
    ] as const) {
      const { status, stderr } = await box().cli([
        image,
        target,
        '-o',
        options,
        ...box().transport,
      ]);
      expect(status).to.equal(1);
      expect(withoutLimits(stderr)).to.match(reason);
    }
    expect(box().mounts()).to.deep.equal([]);
  });

  it('says how to get the package, and needs no libfuse of the system', async () => {
    const image = await createImage(box(), 'vm.qcow2', MIB);
    const truth = wholeOf(await oracle(box(), image));
    // The program as it is installed, with no package but those that it names, or with another one.
    const place = box().path('node_modules', 'qcow2fs');
    mkdirSync(place, { recursive: true });
    cpSync(join(ROOT, 'dist'), join(place, 'dist'), { recursive: true });
    cpSync(join(ROOT, 'package.json'), join(place, 'package.json'));
    for (const name of readdirSync(join(ROOT, 'node_modules'))) {
      if (name === 'fuse-native' || name.startsWith('.')) continue;
      symlinkSync(join(ROOT, 'node_modules', name), box().path('node_modules', name));
    }
    const mnt = box().folder();
    const program = join(place, 'dist/cli/main.js');
    const run = (...words: string[]) => box().run(process.execPath, [program, ...words]);
    const mount = () => run(image, mnt, ...box().transport);
    expect((await mount()).stderr).to.include(
      'the package fuse-native is not installed (npm install -g --ignore-scripts fuse-native@2.2.6)',
    );
    expect((await run('doctor')).stdout).to.match(
      /^optional +fuse-native .*is not installed\n +-> npm install -g --ignore-scripts fuse-native@/m,
    );
    const other = box().path('node_modules', 'fuse-native');
    mkdirSync(other);
    writeFileSync(join(other, 'package.json'), '{"version":"2.1.0"}');
    expect((await mount()).stderr).to.include('the package fuse-native is of version 2.1.0');
    cpSync(join(ROOT, 'node_modules/fuse-native'), other, { recursive: true });
    expect(await mount()).to.deep.equal({ status: 0, stdout: '', stderr: WARNING });
    await expectSame(box(), `${mnt}/disk.raw`, truth);
    const [server] = box().mounts();
    expect(server).to.include({ type: 'fuse.qcow2fs' });
    const pid = (
      await box().must('getfattr', ['-n', 'user.qcow2.daemon-pid', '--only-values', mnt])
    ).trim();
    const mapped = readFileSync(`/proc/${pid}/maps`, 'utf8').match(/\S*libfuse\S*/g) ?? [];
    expect([...new Set(mapped)]).to.deep.equal([
      join(other, `prebuilds/linux-${process.arch}/libfuse.so`),
    ]);
    await box().unmount(mnt);
  });
});
