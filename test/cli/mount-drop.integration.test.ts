/** `user=NAME`: root mounts, and then serves as an ordinary user, for good. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { serversOf } from '#src/fuse/mountinfo.js';
import { processIds, processStart } from '#src/sys/process.js';
import { sectorOf } from '../helpers/faults.js';
import {
  CLI,
  lacking,
  noMounts,
  skipSuite,
  unreadableBuild,
  until,
  useSandbox,
} from '../helpers/mount.js';
import { createImage, MIB, oracle } from '../helpers/mount-images.js';

const NOBODY = 65534;
const DAEMON = 1;
const HOST = fileURLToPath(new URL('../helpers/mount-host.js', import.meta.url));

/** What all threads of a process are: the same, line by line, or the test fails. */
function privileges(pid: number): string[] {
  const texts = readdirSync(`/proc/${pid}/task`).map((thread) => {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'latin1');
    return status.match(/^(Uid|Gid|Groups|CapPrm|CapEff|CapAmb|NoNewPrivs):.*$/gm)!.join('\n');
  });
  expect(new Set(texts).size).to.equal(1);
  return texts[0]!.split('\n').map((line) => line.replace(/\s+/g, ' ').trim());
}

const PLAIN = [
  `Uid: ${`${NOBODY} `.repeat(4).trim()}`,
  `Gid: ${`${NOBODY} `.repeat(4).trim()}`,
  `Groups: ${NOBODY}`,
  'CapPrm: 0000000000000000',
  'CapEff: 0000000000000000',
  'NoNewPrivs: 1',
  'CapAmb: 0000000000000000',
].sort();

describe('a mount with user=', () => {
  skipSuite(() => noMounts() ?? lacking('setpriv') ?? unreadableBuild());
  const box = useSandbox();

  async function serve(options = 'rw,user=nobody') {
    const image = await createImage(box(), 'vm.qcow2', 4 * MIB);
    const mnt = await box().mount(image, { options: ['-o', options] });
    const [mount] = box().mounts();
    return { image, mnt, pid: serversOf(mount!.minor)[0]! };
  }

  /** Nothing of the mount is there any more: no place in the tree, no process. */
  async function gone(pid: number) {
    await until(() => processStart(pid) === undefined, 'the daemon has ended');
    await until(() => box().mounts().length === 0, 'the mount is gone');
    await until(() => unmounters() === 0, 'who unmounts has ended');
  }

  function unmounters(): number {
    const directory = box().directory;
    return processIds().filter((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
        return (
          words.some((word) => word.endsWith('unmounter-main.js')) &&
          words.some((word) => word.startsWith(directory))
        );
      } catch {
        return false;
      }
    }).length;
  }

  const as = (user: number, ...words: string[]) =>
    box().run('setpriv', [`--reuid=${user}`, `--regid=${user}`, '--clear-groups', ...words]);

  it('is served by threads without any privilege, and ends by SIGTERM', async () => {
    const { image, mnt, pid } = await serve();
    expect(privileges(pid).sort()).to.deep.equal(PLAIN);
    await box().must('sh', ['-c', 'printf precious 1<> "$0"', `${mnt}/disk.raw`]);
    process.kill(pid, 'SIGTERM');
    await gone(pid);
    const start = await box().must('head', ['-c', '8', await oracle(box(), image)]);
    expect(start).to.equal('precious');
  });

  it('starts workers anew without any privilege', async () => {
    const image = await createImage(box(), 'vm.qcow2', 4 * MIB);
    const mnt = box().folder();
    const words = ['--no-new-privs', process.execPath, HOST, image, mnt, '1'];
    const host = box().start('setpriv', words, { env: { QCOW2FS_TEST_USER: 'nobody' } });
    await until(() => host.stdout.includes('ready'), 'mounted');
    const dying = `skip=${sectorOf('exit', 0)}`;
    const direct = ['of=/dev/null', 'bs=512', 'count=1', 'iflag=direct'];
    const dd = (...more: string[]) => as(NOBODY, 'dd', `if=${mnt}/disk.raw`, ...direct, ...more);
    expect((await dd(dying)).stderr).to.include('Input/output error');
    expect((await dd()).status).to.equal(0);
    expect(host.stderr).to.include('worker 0 died and is replaced');
    expect(privileges(host.pid).sort()).to.deep.equal(PLAIN);
    host.child.kill('SIGTERM');
    expect(await host.ended()).to.include({ status: 0 });
    expect(box().mounts()).to.deep.equal([]);
  });

  it('started in the foreground it is the same process, and the same', async () => {
    const image = await createImage(box(), 'vm.qcow2', 4 * MIB);
    const mnt = box().folder();
    const daemon = box().startCli([image, mnt, '--foreground', '--user=65534']);
    await until(() => box().mounts().length === 1, 'mounted');
    await until(() => readdirSync(mnt).includes('disk.raw'), 'serving');
    expect(privileges(daemon.pid).sort()).to.deep.equal(PLAIN);
    daemon.child.kill('SIGTERM');
    expect(await daemon.ended()).to.deep.equal({ status: 0, stdout: '', stderr: '' });
    await gone(daemon.pid);
  });

  it('is detached by a signal where it is in use, and when the daemon is killed', async () => {
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      const { mnt, pid } = await serve();
      const holder = box().start('sh', [
        '-c',
        'exec 3<"$0"; echo held; sleep 100',
        `${mnt}/disk.raw`,
      ]);
      await until(() => holder.stdout !== '', 'held');
      process.kill(pid, signal);
      await gone(pid);
      holder.kill('SIGKILL');
    }
  });

  it("is that user's and root's alone; with allow_other it is open to all", async () => {
    const { mnt, pid } = await serve('user=nobody,umask=022');
    const reads = async (user: number) =>
      (await as(user, 'head', '-c1', `${mnt}/disk.raw`)).status === 0;
    for (const user of [0, NOBODY]) expect(await reads(user)).to.equal(true);
    expect(await reads(DAEMON)).to.equal(false);
    // She can end it, too, as a mount of her own.
    const umount = await as(NOBODY, process.execPath, CLI, 'umount', mnt);
    expect(umount).to.deep.equal({ status: 0, stdout: '', stderr: '' });
    await gone(pid);
    // What mount(8) says for root, which takes the option for its own.
    const open = await serve('user=nobody,umask=022,allow_other,exec,suid,dev');
    const flags = readFileSync('/proc/self/mounts', 'utf8').split('\n');
    expect(flags.find((line) => line.includes(` ${open.mnt} `))).to.include('nosuid,nodev');
    expect((await as(DAEMON, 'head', '-c1', `${open.mnt}/disk.raw`)).status).to.equal(0);
    await box().unmount(open.mnt);
    await gone(open.pid);
  });

  it('goes on with what root has opened, and opens nothing else with his rights', async () => {
    const base = await createImage(box(), 'vm.qcow2', 4 * MIB);
    const log = box().path('log');
    const overlay = box().path('over.qcow2');
    const options = `user=nobody,overlay=${overlay},log=${log}`;
    const mnt = await box().mount(base, { options: ['-o', options] });
    const disk = `${mnt}/disk.raw`;
    await box().must('dd', [
      'if=/dev/urandom',
      `of=${disk}`,
      'bs=1M',
      'count=2',
      'conv=notrunc,fsync',
    ]);
    await box().must('touch', [`${mnt}/disk.snapshots/one.raw`]);
    await box().must('truncate', ['-s', '8M', disk]);
    await box().must('cat', [`${mnt}/disk.snapshots/one.changed.json`]);
    writeFileSync(box().path('state'), 'secret', { mode: 0o600 });
    const state = ['snapshot', '--vmstate', box().path('state'), '-c', 'two', mnt];
    const { status, stderr } = await box().cli(state);
    expect(status).to.equal(1);
    expect(stderr).to.include('Permission denied');
    expect(statSync(overlay)).to.include({ uid: 0 });
    await box().unmount(mnt);
    await box().must('qemu-img', ['check', overlay]);
    expect(readdirSync(box().directory)).to.include('log');
  });

  it('is refused where nobody can become that user', async () => {
    const image = await createImage(box(), 'vm.qcow2', MIB);
    const mnt = box().folder();
    const refused = async (user: string, words: string) => {
      const { status, stderr } = await box().cli([image, mnt, '-o', `user=${user}`]);
      expect({ status, stderr }).to.deep.equal({
        status: 1,
        stderr: `qcow2fs: option 'user': ${words}\n`,
      });
    };
    await refused('root', "'root' is root (an ordinary user)");
    await refused('no-such', "no user 'no-such' (a name, or a number)");
    const { stderr } = await as(DAEMON, process.execPath, CLI, image, mnt, '-o', 'user=nobody');
    expect(stderr).to.equal(
      "qcow2fs: option 'user': only root can become 'nobody' (leave it out)\n",
    );
  });
});
