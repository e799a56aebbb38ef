/** Guests' file systems, mounted through loop devices from the files of a mount. */
import { chmodSync, mkdirSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { lacking, noMounts, type Sandbox, skipSuite, useSandbox } from '../helpers/mount.js';
import { createImage, KIB, MIB, noise, qemuIo } from '../helpers/mount-images.js';

interface Guest {
  readonly type: string;
  /** Options that keep the kernel from replaying a log. */
  readonly options: string;
  /** Fills `image` with a file system that holds what lies in `source`. */
  make(sandbox: Sandbox, source: string, image: string): Promise<void>;
}

const GUESTS: readonly Guest[] = [
  {
    type: 'ext4',
    options: 'ro,loop,noload',
    make: async (sandbox, source, image) => {
      truncateSync(createEmpty(image), 48 * MIB);
      await sandbox.must('mkfs.ext4', ['-q', '-d', source, image]);
    },
  },
  {
    type: 'xfs',
    options: 'ro,loop,norecovery',
    make: async (sandbox, source, image) => {
      truncateSync(createEmpty(image), 310 * MIB);
      await sandbox.must('mkfs.xfs', ['-q', image]);
      const mnt = sandbox.folder('filling');
      await sandbox.must('mount', ['-o', 'loop', image, mnt]);
      await sandbox.must('cp', ['-a', `${source}/.`, mnt]);
      await sandbox.must('umount', [mnt]);
    },
  },
  {
    type: 'squashfs',
    options: 'ro,loop',
    make: async (sandbox, source, image) => {
      await sandbox.must('mksquashfs', [source, image, '-quiet', '-no-progress', '-noappend']);
    },
  },
];

function createEmpty(path: string): string {
  writeFileSync(path, '');
  return path;
}

/** A tree with small and large files, a sparse one, links and modes. */
function makeTree(sandbox: Sandbox): string {
  const root = sandbox.folder('tree');
  mkdirSync(`${root}/deep/er`, { recursive: true });
  for (let index = 0; index < 60; index++) {
    writeFileSync(`${root}/deep/file${index}`, noise(index, index * 517));
  }
  writeFileSync(`${root}/large`, noise(1000, 5 * MIB + 17));
  writeFileSync(`${root}/text`, 'the same words again and again. '.repeat(40_000));
  truncateSync(createEmpty(`${root}/deep/er/sparse`), 3 * MIB);
  symlinkSync('../large', `${root}/deep/link`);
  chmodSync(`${root}/text`, 0o751);
  return root;
}

/** A disk whose first partition is `image`, as a raw file. */
async function partitioned(sandbox: Sandbox, image: string): Promise<string> {
  const disk = sandbox.path('whole.raw');
  const sectors = Math.ceil(statSync(image).size / 512);
  truncateSync(createEmpty(disk), (sectors + 4096) * 512);
  const table = `label: gpt\nstart=2048, size=${sectors}`;
  await sandbox.must('bash', ['-c', 'sfdisk -q --no-reread "$0" <<< "$1"', disk, table]);
  const words = ['bs=1M', 'seek=1', 'conv=notrunc,sparse', 'status=none'];
  await sandbox.must('dd', [`if=${image}`, `of=${disk}`, ...words]);
  return disk;
}

async function expectTree(sandbox: Sandbox, file: string, guest: Guest, tree: string) {
  const mnt = sandbox.folder();
  await sandbox.must('mount', ['-t', guest.type, '-o', guest.options, file, mnt]);
  const same = await sandbox.run('diff', ['-r', '--no-dereference', '-x', 'lost+found', tree, mnt]);
  expect(same).to.deep.equal({ status: 0, stdout: '', stderr: '' });
  expect(statSync(`${mnt}/text`).mode & 0o777).to.equal(0o751);
  await sandbox.must('umount', [mnt]);
}

describe("a guest's file system in a mount", () => {
  skipSuite(() => noMounts() ?? lacking('mkfs.ext4', 'mkfs.xfs', 'mksquashfs', 'sfdisk'));
  const box = useSandbox();

  for (const guest of GUESTS) {
    it(`can be mounted: ${guest.type}, from the disk and from a partition`, async () => {
      const sandbox = box();
      const tree = makeTree(sandbox);
      const plain = sandbox.path('plain.raw');
      await guest.make(sandbox, tree, plain);
      const whole = await partitioned(sandbox, plain);
      for (const [raw, flags, part] of [
        [plain, ['-c'], 'disk.raw'],
        [whole, ['-o', 'extended_l2=on'], 'disk.partitions/1.raw'],
      ] as const) {
        const image = `${raw}.qcow2`;
        await sandbox.must('qemu-img', ['convert', '-O', 'qcow2', ...flags, raw, image]);
        const mnt = await sandbox.mount(image);
        await expectTree(sandbox, `${mnt}/${part}`, guest, tree);
        expect(sandbox.loops()).to.deep.equal([]);
        await sandbox.unmount(mnt);
      }
    });
  }

  it('is seen by blkid, and by a loop device with direct I/O', async () => {
    const sandbox = box();
    const plain = sandbox.path('plain.raw');
    await GUESTS[0]!.make(sandbox, makeTree(sandbox), plain);
    const image = sandbox.path('disk.qcow2');
    const whole = await partitioned(sandbox, plain);
    await sandbox.must('qemu-img', ['convert', '-O', 'qcow2', whole, image]);
    const mnt = await sandbox.mount(image);
    const kind = await sandbox.must('blkid', [
      '-po',
      'value',
      '-s',
      'TYPE',
      `${mnt}/disk.partitions/1.raw`,
    ]);
    expect(kind).to.equal('ext4\n');
    const words = ['--find', '--show', '--read-only', '--direct-io=on', `${mnt}/disk.raw`];
    const device = (await sandbox.must('losetup', words)).trim();
    expect(await sandbox.run('cmp', [device, whole])).to.include({ status: 0, stderr: '' });
    await sandbox.must('losetup', ['-d', device]);
    await sandbox.unmount(mnt);
  });

  it('keeps the mount in use: umount is refused, and says by whom', async () => {
    const sandbox = box();
    const image = await createImage(sandbox, 'disk.qcow2', 4 * MIB);
    await qemuIo(sandbox, image, [`write -P 7 0 ${64 * KIB}`]);
    const mnt = await sandbox.mount(image);
    const words = ['--find', '--show', '--read-only', `${mnt}/disk.raw`];
    const device = (await sandbox.must('losetup', words)).trim();
    const refused = await sandbox.cli(['umount', mnt]);
    expect(refused).to.include({ status: 1, stdout: '' });
    expect(refused.stderr).to.include('EBUSY').and.include(device);
    await sandbox.must('losetup', ['-d', device]);
    await sandbox.unmount(mnt);
  });
});
