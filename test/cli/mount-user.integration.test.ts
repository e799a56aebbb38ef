/** Mounts of ordinary users: through fusermount3, for themselves alone or for others too. */
import { chmodSync, chownSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import {
  CLI,
  lacking,
  noMounts,
  skipSuite,
  unreadableBuild,
  until,
  useSandbox,
} from '../helpers/mount.js';
import { createImage, MIB, oracle, qemuIo } from '../helpers/mount-images.js';
import { ALICE, BOB, ROOT, TOOLS, UserSpace } from '../helpers/user-space.js';

describe("an ordinary user's mount", () => {
  skipSuite(() => noMounts() ?? lacking(...TOOLS) ?? unreadableBuild());
  const box = useSandbox();
  let space: UserSpace | undefined;
  let image: string;
  let mnt: string;
  let truth: string;

  async function begin(configuration = ''): Promise<UserSpace> {
    space = await UserSpace.make(box(), { configuration });
    image = await createImage(box(), 'vm.qcow2', 4 * MIB);
    await qemuIo(box(), image, ['write -P 1 0 1M', 'write -P 2 3000k 5000']);
    truth = await oracle(box(), image);
    chmodSync(image, 0o644);
    mnt = box().folder();
    chownSync(mnt, ALICE, ALICE);
    return space;
  }
  afterEach(() => {
    space?.close();
    space = undefined;
  });

  /** Whether that user can read the mounted disk, and all of it is right. */
  async function reads(user: number): Promise<boolean> {
    const { status, stderr } = await space!.run(user, 'cmp', `${mnt}/disk.raw`, truth);
    if (status !== 0) expect(stderr).to.include('Permission denied');
    return status === 0;
  }

  it('is hers alone: neither another user nor root gets in', async () => {
    const { cli, run } = bound(await begin());
    expect(await cli(ALICE, image, mnt)).to.deep.equal({ status: 0, stdout: '', stderr: '' });
    expect(await reads(ALICE)).to.equal(true);
    expect(await reads(BOB)).to.equal(false);
    expect(await reads(ROOT)).to.equal(false);
    expect((await run(BOB, 'ls', mnt)).stderr).to.include('Permission denied');
    const shown = await run(ALICE, 'findmnt', '-no', 'FSTYPE,SOURCE,OPTIONS', mnt);
    expect(shown.stdout)
      .to.match(/^fuse\.qcow2fs\s/)
      .and.include(image);
    expect(shown.stdout).to.include('nosuid,nodev').and.include(`user_id=${ALICE}`);
    expect(await cli(ALICE, 'umount', mnt)).to.deep.equal({ status: 0, stdout: '', stderr: '' });
    expect((await run(ALICE, 'findmnt', mnt)).status).to.equal(1);
  });

  it('over a file works, and by fusermount3 -u it ends', async () => {
    const { cli, run, start } = bound(await begin());
    const file = box().path('file');
    writeFileSync(file, '');
    chownSync(file, ALICE, ALICE);
    const daemon = start(ALICE, process.execPath, CLI, image, file, '--foreground');
    const same = async () => (await run(ALICE, 'cmp', file, truth)).status === 0;
    for (let tries = 0; tries < 100 && !(await same()); tries++);
    expect(await same()).to.equal(true);
    expect((await run(ALICE, 'fusermount3', '-u', file)).status).to.equal(0);
    expect(await daemon.ended()).to.include({ status: 0, stderr: '' });
    expect((await cli(ALICE, 'umount', file)).stderr).to.include('nothing is mounted');
  });

  it('ends by SIGTERM, with a file held open as well', async () => {
    const { run, start } = bound(await begin());
    for (const held of [false, true]) {
      const daemon = start(ALICE, process.execPath, CLI, image, mnt, '--foreground');
      const ready = async () => (await run(ALICE, 'test', '-e', `${mnt}/disk.raw`)).status === 0;
      for (let tries = 0; tries < 100 && !(await ready()); tries++);
      const script = 'exec 3<"$0"; echo held; exec sleep 1000';
      const holder = start(ALICE, 'sh', '-c', held ? script : 'echo free', `${mnt}/disk.raw`);
      await until(() => holder.stdout !== '', 'the file is held');
      daemon.child.kill('SIGTERM');
      expect((await daemon.ended()).status).to.equal(0);
      expect((await run(ALICE, 'findmnt', mnt)).status).to.equal(1);
    }
  });

  it('is refused on a mount point of somebody else, and of an image that she cannot read', async () => {
    const { cli } = bound(await begin());
    const onto = await cli(BOB, image, mnt);
    expect(onto.status).to.equal(1);
    expect(onto.stderr).to.match(/^qcow2fs: cannot mount on .*no write access/);
    chmodSync(image, 0o600);
    const unread = await cli(ALICE, image, mnt);
    expect(unread.status).to.equal(1);
    expect(unread.stderr).to.match(/^qcow2fs: Could not open .*Permission denied/);
  });

  it('cannot be unmounted by another user', async () => {
    const { cli } = bound(await begin());
    await cli(ALICE, image, mnt);
    const { status, stderr } = await cli(BOB, 'umount', mnt);
    expect(status).to.equal(1);
    expect(stderr).to.match(/^qcow2fs: cannot unmount/);
    expect(await reads(ALICE)).to.equal(true);
  });

  for (const option of ['allow_other', 'allow_root']) {
    // The kernel knows allow_other only: allow_root is allow_other with a check of our own, and
    // fusermount3 wants the administrator's leave for it as for allow_other.
    it(`is refused with ${option} unless /etc/fuse.conf allows it, and says what to do`, async () => {
      const { cli, run } = bound(await begin());
      const { status, stderr } = await cli(ALICE, image, mnt, '-o', option);
      expect(status).to.equal(1);
      expect(stderr).to.match(/^qcow2fs: allow_other is not open .*'user_allow_other'.*fuse\.conf/);
      expect((await run(ALICE, 'findmnt', mnt)).status).to.equal(1);
    });
  }

  it('with allow_other is open to all, by the modes of its files', async () => {
    const { cli } = bound(await begin('user_allow_other\n'));
    await cli(ALICE, image, mnt, '-o', 'allow_other');
    for (const user of [ALICE, BOB, ROOT]) expect(await reads(user), String(user)).to.equal(true);
    await cli(ALICE, 'umount', mnt);
    await cli(ALICE, image, mnt, '-o', `allow_other,umask=077,uid=${ALICE}`);
    expect(await reads(ALICE)).to.equal(true);
    expect(await reads(BOB)).to.equal(false);
    expect(await reads(ROOT)).to.equal(true);
  });

  it('with allow_root is open to her and root only, whoever looked before', async () => {
    const { cli, run } = bound(await begin('user_allow_other\n'));
    expect((await cli(ALICE, image, mnt, '-o', 'allow_root')).stderr).to.equal('');
    expect(await reads(BOB)).to.equal(false);
    expect(await reads(ALICE)).to.equal(true);
    expect(await reads(ROOT)).to.equal(true);
    // The kernel has names and pages in its cache now.
    expect(await reads(BOB)).to.equal(false);
    expect((await run(BOB, 'ls', mnt)).stderr).to.include('Permission denied');
    // What stat tells of a name that she has looked at comes from the kernel's cache, and is not
    // refused: the check is ours, and the kernel asks us only for what it does not know.
    expect((await run(BOB, 'test', '-r', `${mnt}/disk.info.json`)).status).to.equal(1);
  });
});

/** The methods of a space as functions. */
function bound(space: UserSpace) {
  return {
    cli: space.cli.bind(space),
    run: space.run.bind(space),
    start: space.start.bind(space),
  };
}
