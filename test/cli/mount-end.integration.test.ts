/** The end of a mount when others have meddled with it, and `--help` of every command. */
import { existsSync, statSync } from 'node:fs';
import { expect } from 'chai';
import { COMMANDS } from '#src/cli/commands.js';
import { findMount } from '#src/fuse/mountinfo.js';
import { processStart } from '#src/sys/process.js';
import { noMounts, type Sandbox, skipSuite, until, useSandbox } from '../helpers/mount.js';
import { createImage, MIB } from '../helpers/mount-images.js';

describe('qcow2fs, where a signal meets a mount that others have meddled with,', () => {
  skipSuite(noMounts);
  const box = useSandbox();
  let images = 0;

  async function startForeground(sandbox: Sandbox, mnt = sandbox.folder()) {
    const image = await createImage(sandbox, `vm${images++}.qcow2`, MIB);
    const before = findMount(mnt)?.minor;
    const daemon = sandbox.startCli([image, mnt, '--foreground']);
    await until(() => findMount(mnt)?.minor !== before && existsSync(`${mnt}/disk.raw`), 'mounted');
    return { daemon, mnt };
  }

  async function hold(sandbox: Sandbox, mnt: string) {
    const script = 'exec 3<"$0/disk.raw"; echo held; read -r -t 100 <> <(:)';
    const holder = sandbox.start('bash', ['-c', script, mnt]);
    await until(() => holder.stdout.includes('held'), 'the file is held');
    return holder;
  }

  it('ends although the mount was taken out of the tree with a file open', async () => {
    const { daemon, mnt } = await startForeground(box());
    await hold(box(), mnt);
    await box().must('umount', ['-l', mnt]);
    daemon.child.kill('SIGTERM');
    const { status, stderr } = await daemon.ended();
    expect(status).to.equal(0);
    expect(stderr).to.match(/^qcow2fs: SIGTERM: '.*' is not our mount \(any more\)[^\n]*\n$/);
  });

  it('goes on after SIGUSR1, which asks commands how far they are', async () => {
    const { daemon, mnt } = await startForeground(box());
    daemon.child.kill('SIGUSR1');
    expect(statSync(`${mnt}/disk.raw`).size).to.equal(MIB);
    daemon.child.kill('SIGTERM');
    expect(await daemon.ended()).to.include({ status: 0, stderr: '' });
  });

  it('leaves a mount alone that lies on top', async () => {
    const { daemon: below, mnt } = await startForeground(box());
    const { daemon: above } = await startForeground(box(), mnt);
    const top = findMount(mnt)!.minor;
    below.child.kill('SIGTERM');
    expect((await below.ended()).stderr).to.match(/is not our mount/);
    expect(findMount(mnt)!.minor).to.equal(top);
    expect(statSync(`${mnt}/disk.raw`).size).to.equal(MIB);
    above.child.kill('SIGTERM');
    expect(await above.ended()).to.include({ status: 0, stderr: '' });
  });

  it('ends by the second signal where the first one does not suffice', async () => {
    const { daemon, mnt } = await startForeground(box());
    const other = box().folder();
    await box().must('mount', ['--bind', mnt, other]);
    daemon.child.kill('SIGTERM');
    await until(() => findMount(mnt) === undefined, 'unmounted');
    expect(processStart(daemon.pid)).to.be.a('number');
    expect(statSync(`${other}/disk.raw`).size).to.equal(MIB);
    daemon.child.kill('SIGTERM');
    expect((await daemon.ended()).status).to.equal(0);
  });

  it('qcow2fs umount --lazy does not wait for who uses the mount', async () => {
    const { daemon, mnt } = await startForeground(box());
    await hold(box(), mnt);
    expect(await box().cli(['umount', '--lazy', mnt])).to.include({ status: 0, stderr: '' });
    expect(findMount(mnt)).to.equal(undefined);
    expect(processStart(daemon.pid)).to.be.a('number');
  });
});

describe('qcow2fs … --help', () => {
  const box = useSandbox('suite');

  for (const { name, usage, summary } of COMMANDS) {
    it(`tells the usage of ${name}, wherever it stands`, async () => {
      for (const words of [['--help'], ['x', 'y', '--help'], ['-h', '--nonsense']]) {
        const { status, stdout, stderr } = await box().cli([name, ...words]);
        expect({ status, stderr }).to.deep.equal({ status: 0, stderr: '' });
        expect(stdout).to.include(`Usage: qcow2fs ${usage}\n    ${summary}\n`);
      }
    });
  }

  it('tells of mounting without the word mount, and of everything as the first word', async () => {
    expect((await box().cli(['IMAGE', 'MNT', '--help'])).stdout).to.match(
      /\[mount\] IMAGE[\s\S]*uid=N/,
    );
    const { stdout } = await box().cli(['--help']);
    for (const { usage } of COMMANDS) expect(stdout).to.include(usage);
  });

  it('is a name behind --', async () => {
    const { status, stderr } = await box().cli(['info', '--', '--help']);
    expect(status).to.equal(1);
    expect(stderr).to.match(/'--help'/);
  });
});

describe('qcow2fs info of an image that names another', () => {
  skipSuite(noMounts);
  const box = useSandbox('suite');

  before(async () => {
    const base = { file: await createImage(box(), 'base.qcow2', MIB), format: 'qcow2' };
    await createImage(box(), 'overlay.qcow2', MIB, '', base);
    box().folder('elsewhere');
  });

  const info = (...words: string[]) =>
    box().cli(['info', '--backing-chain', ...words, box().path('overlay.qcow2')]);

  it('refuses with --no-backing, and with --backing-root of another folder', async () => {
    for (const word of ['--no-backing', `--backing-root=${box().path('elsewhere')}`]) {
      const { status, stderr } = await info(word);
      expect(status, word).to.equal(1);
      expect(stderr).to.match(/base\.qcow2/);
    }
    expect((await info(`--backing-root=${box().directory}`)).status).to.equal(0);
  });
});
