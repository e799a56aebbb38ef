/** The tree of a mount: its names, what stat, statfs and getxattr tell, and that nothing is written. */
import { chmodSync, existsSync, readdirSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { expect } from 'chai';
import { lacking, type Sandbox, skipSuite, useSandbox } from '../helpers/mount.js';
import { describeTransports } from '../helpers/transports.js';
import { craftSnapshots, createImage, MIB, qemuIo } from '../helpers/mount-images.js';

/** Extended attributes of a file, without their common prefix. */
async function xattrsOf(sandbox: Sandbox, path: string): Promise<Map<string, string>> {
  const shown = await sandbox.must('getfattr', ['--absolute-names', '-d', '-m', '-', path]);
  const found = new Map<string, string>();
  for (const [, name, value] of shown.matchAll(/^user\.qcow2\.([^=]+)=(.*)$/gm)) {
    found.set(name!, value!.replace(/^"(.*)"$/, '$1'));
  }
  return found;
}

describeTransports('the attributes of a mount', ({ transport, itByKernel }) => {
  skipSuite(() => lacking('getfattr'));
  const box = useSandbox('test', transport);

  itByKernel(
    'are those of the image: times to the nanosecond, owner, mode less writing',
    async () => {
      const sandbox = box();
      const image = await createImage(sandbox, 'vm.qcow2', 5 * MIB);
      chmodSync(image, 0o640);
      await sandbox.must('chown', ['1234:5678', image]);
      await sandbox.must('touch', ['-m', '-d', '2020-01-02 03:04:05.123456789Z', image]);
      const mnt = await sandbox.mount(image);
      const of = statSync(image, { bigint: true });
      for (const name of ['disk.raw', 'disk.info.json', 'disk.snapshots', '']) {
        const shown = statSync(`${mnt}/${name}`, { bigint: true });
        expect(shown, name).to.include({ uid: 1234n, gid: 5678n, mtimeNs: of.mtimeNs });
        expect(shown, name).to.include({ ctimeNs: of.ctimeNs, birthtimeNs: of.birthtimeNs });
        const mode = shown.isDirectory() ? 0o550n : 0o440n;
        expect(shown.mode & 0o7777n, name).to.equal(mode);
      }
      expect(statSync(`${mnt}/disk.raw`).size).to.equal(5 * MIB);
      const created = await sandbox.must('stat', ['-c', '%w', `${mnt}/disk.raw`]);
      expect(created).to.equal(await sandbox.must('stat', ['-c', '%w', image]));
    },
  );

  itByKernel('before 1970 are those of the epoch', async () => {
    const image = await createImage(box(), 'vm.qcow2', MIB);
    await box().must('touch', ['-d', '1969-12-31 12:00:00.5Z', image]);
    expect(statSync(image).mtimeMs).to.be.below(0);
    const mnt = await box().mount(image);
    expect(statSync(`${mnt}/disk.raw`).mtimeMs).to.equal(0);
  });

  it('can be set: uid, gid, umask', async () => {
    const image = await createImage(box(), 'vm.qcow2', MIB);
    chmodSync(image, 0o644);
    const mnt = await box().mount(image, { options: ['-o', 'uid=7,gid=8', '--umask', '037'] });
    expect(statSync(`${mnt}/disk.raw`)).to.include({ uid: 7, gid: 8, mode: 0o100440 });
    expect(statSync(mnt)).to.include({ uid: 7, gid: 8, mode: 0o40550 });
  });

  itByKernel('of snapshots are their own: date and size', async () => {
    const sandbox = box();
    const image = await createImage(sandbox, 'vm.qcow2', 5 * MIB);
    craftSnapshots(image, [
      { id: '1', name: 'old', diskSize: 3 * MIB, dateSec: 1_500_000_000, dateNsec: 123_456_789 },
      { id: '2', name: 'odd', diskSize: 4 * MIB, dateSec: 0xffff_ffff, dateNsec: 0xffff_ffff },
    ]);
    const mnt = await sandbox.mount(image);
    const old = statSync(`${mnt}/disk.snapshots/old.raw`, { bigint: true });
    expect(old).to.include({ size: BigInt(3 * MIB), mtimeNs: 1_500_000_000_123_456_789n });
    expect(old.birthtimeNs).to.equal(old.mtimeNs);
    const odd = statSync(`${mnt}/disk.snapshots/odd.raw`, { bigint: true });
    expect(odd.mtimeNs / 1_000_000_000n).to.equal(0xffff_ffffn);
  });

  it('are extended by facts of the image, the snapshot and the partition', async () => {
    const sandbox = box();
    const raw = sandbox.path('raw');
    await sandbox.must('truncate', ['-s', '8M', raw]);
    const table = 'label: gpt\nstart=2048, size=4096, name="root, ä"';
    await sandbox.must('bash', ['-c', 'sfdisk -q --no-reread "$0" <<< "$1"', raw, table]);
    const image = sandbox.path('vm.qcow2');
    await sandbox.must('qemu-img', ['convert', '-O', 'qcow2', raw, image]);
    await sandbox.must('qemu-img', ['snapshot', '-c', 'first', image]);
    const mnt = await sandbox.mount(image);
    const root = await xattrsOf(sandbox, mnt);
    expect(Object.fromEntries(root)).to.include({ image, format: 'qcow2', snapshots: '1' });
    expect(root.get('virtual-size')).to.equal(String(8 * MIB));
    expect(root.has('daemon-pid')).to.equal(true);
    const partition = await xattrsOf(sandbox, `${mnt}/disk.snapshots/first.partitions/1.raw`);
    expect(Object.fromEntries(partition)).to.include({
      'snapshot.name': 'first',
      'snapshot.id': '1',
      'partition.number': '1',
      'partition.offset': String(MIB),
    });
    const name = ['--only-values', '-n', 'user.qcow2.partition.name'];
    const file = `${mnt}/disk.partitions/1.raw`;
    expect(await sandbox.must('getfattr', ['--absolute-names', ...name, file])).to.equal('root, ä');
    const absent = await sandbox.run('getfattr', ['-n', 'user.none', file]);
    expect(absent.status).to.equal(1);
    expect(absent.stderr).to.include('No such attribute');
  });

  itByKernel("of a snapshot mounted as the disk are the snapshot's", async () => {
    const sandbox = box();
    const image = await createImage(sandbox, 'vm.qcow2', 5 * MIB);
    craftSnapshots(image, [{ id: '1', name: 'old', diskSize: 3 * MIB, dateSec: 1_500_000_000 }]);
    const mnt = await sandbox.mount(image, { options: ['-o', 'snapshot=old'] });
    const shown = statSync(`${mnt}/disk.raw`, { bigint: true });
    expect(shown).to.include({ size: BigInt(3 * MIB), mtimeNs: 1_500_000_000_000_000_000n });
    const attributes = Object.fromEntries(await xattrsOf(sandbox, `${mnt}/disk.raw`));
    expect(attributes).to.include({ 'snapshot.name': 'old', 'virtual-size': String(3 * MIB) });
  });

  it('of the file system are the sizes of the disk', async () => {
    const image = await createImage(box(), 'vm.qcow2', 5 * MIB);
    const mnt = await box().mount(image);
    const { bsize, blocks, bfree, bavail, files, ffree } = statfsSync(mnt);
    expect(bsize * blocks).to.equal(5 * MIB);
    expect({ bfree, bavail, ffree }).to.deep.equal({ bfree: 0, bavail: 0, ffree: 0 });
    expect(files).to.be.above(0);
    const shown = await box().must('df', ['--output=size,avail,pcent,fstype,target', mnt]);
    expect(shown).to.match(/\n\s*5120\s+0\s+100%\s+fuse\.qcow2fs/);
  });

  itByKernel('show what info --output=json prints', async () => {
    const image = await createImage(box(), 'vm.qcow2', 5 * MIB);
    const mnt = await box().mount(image);
    const info = JSON.parse(readFileSync(`${mnt}/disk.info.json`, 'utf8'));
    const printed = await box().cli(['info', '--output=json', image]);
    expect(info).to.deep.equal(JSON.parse(printed.stdout));
  });
});

describeTransports('the names in a mount', ({ transport, itByKernel }) => {
  skipSuite(() => lacking('getfattr'));
  const box = useSandbox('test', transport);

  it('are listed alike by all who list, and found one by one', async () => {
    const sandbox = box();
    const image = await createImage(sandbox, 'vm.qcow2', 4 * MIB);
    const mnt = await sandbox.mount(image);
    expect(readdirSync(mnt).sort()).to.deep.equal(['disk.info.json', 'disk.raw', 'disk.snapshots']);
    expect(readdirSync(`${mnt}/disk.snapshots`)).to.deep.equal([]);
    // The image's own name works too, though it is not listed.
    expect(statSync(`${mnt}/vm.raw`).ino).to.equal(statSync(`${mnt}/disk.raw`).ino);
    expect(existsSync(`${mnt}/vm.rawx`)).to.equal(false);
    const above = await sandbox.must('stat', ['-c', '%i', `${mnt}/disk.snapshots/..`]);
    expect(above).to.equal(await sandbox.must('stat', ['-c', '%i', mnt]));
    const links = await sandbox.must('find', [mnt, '-type', 'f']);
    expect(links.trim().split('\n')).to.have.lengthOf(2);
  });

  itByKernel('of 3000 snapshots are complete, in every way of listing', async () => {
    const sandbox = box();
    const image = await createImage(sandbox, 'vm.qcow2', 4 * MIB);
    const names = Array.from({ length: 3000 }, (_, index) => `a rather long name ${index}`);
    craftSnapshots(
      image,
      names.map((name, index) => ({ id: String(index + 1), name, diskSize: MIB + index * 512 })),
    );
    const mnt = await sandbox.mount(image);
    const wanted = names.flatMap((name) => [`${name}.raw`, `${name}.changed.json`]);
    const list = async (command: string, ...words: string[]) =>
      (await sandbox.must(command, [...words, `${mnt}/disk.snapshots`])).trim().split('\n');
    expect(await list('ls', '-U')).to.deep.equal(wanted);
    expect(await list('ls'))
      .to.have.members(wanted)
      .and.have.lengthOf(6000);
    const found = await sandbox.must('find', [
      `${mnt}/disk.snapshots`,
      ...['-name', '*.raw', '-printf', '%f %s\\n'],
    ]);
    const sized = names.map((name, index) => `${name}.raw ${MIB + index * 512}`);
    expect(found.trim().split('\n')).to.have.members(sized).and.have.lengthOf(3000);
    const [long, again] = [await list('ls', '-lU'), await list('ls', '-lU')];
    expect(long).to.deep.equal(again).and.have.lengthOf(6001);
  });

  itByKernel('of a thousand snapshots with large partition tables are found at once', async () => {
    const sandbox = box();
    const raw = sandbox.path('raw');
    await sandbox.must('truncate', ['-s', '64M', raw]);
    const table = 'label: gpt\ntable-length: 8192\nfirst-lba: 4096\nsize=2048\n';
    await sandbox.must('bash', ['-c', 'sfdisk -q --no-reread "$0" <<< "$1"', raw, table]);
    const image = sandbox.path('vm.qcow2');
    await sandbox.must('qemu-img', ['convert', '-O', 'qcow2', raw, image]);
    const snapshots = Array.from({ length: 1000 }, (_, index) => ({
      ...{ id: String(index + 1), name: `s${index}`, diskSize: 64 * MIB },
    }));
    craftSnapshots(image, snapshots);
    const mnt = await sandbox.mount(image);
    expect(statSync(`${mnt}/disk.snapshots/s5.raw`).size).to.equal(64 * MIB);
    expect(readdirSync(`${mnt}/disk.snapshots`)).to.have.lengthOf(2000);
    expect(readdirSync(`${mnt}/disk.snapshots/s7.partitions`)).to.deep.equal(['1.raw']);
    const links = await sandbox.must('stat', ['-c', '%h', mnt, `${mnt}/disk.snapshots`]);
    expect(links).to.equal('4\n1\n');
  });

  it('stand for odd names of snapshots', async () => {
    const sandbox = box();
    const image = await createImage(sandbox, 'vm.qcow2', 4 * MIB);
    const odd: [string | Uint8Array, string][] = [
      ['', '#1'],
      ['a/b', 'a%2Fb'],
      ['.hidden', '%2Ehidden'],
      ['%', '%25'],
      ['twice', 'twice#5'],
      ['twice', 'twice#6'],
      ['twice#5x', 'twice#5x'],
      ['..', '%2E.'],
      ['#', '#'],
      ['line\nbreak\x01', 'line%0Abreak%01'],
      ['ä€😀 "quoted" \\', 'ä€😀 "quoted" \\'],
      ['n'.repeat(300), `${'n'.repeat(255 - '.changed.json'.length - 3)}#12`],
      [Buffer.from([0x61, 0xff, 0x62]), 'a\ufffdb'],
      ['.', '%2E'],
    ];
    const snapshots = odd.map(([name], index) => ({
      id: String(index + 1),
      name,
      diskSize: MIB + index * 512,
    }));
    craftSnapshots(image, snapshots);
    const mnt = await sandbox.mount(image);
    const files = odd.map(([, file]) => `${file}.raw`);
    const changed = odd.map(([, file]) => `${file}.changed.json`);
    expect(readdirSync(`${mnt}/disk.snapshots`)).to.have.members([...files, ...changed]);
    for (const [index, file] of files.entries()) {
      const path = `${mnt}/disk.snapshots/${file}`;
      expect(statSync(path).size, file).to.equal(snapshots[index]!.diskSize);
      expect(readFileSync(path).length, file).to.equal(snapshots[index]!.diskSize);
    }
    const attributes = await xattrsOf(sandbox, `${mnt}/disk.snapshots/a%2Fb.raw`);
    expect(attributes.get('snapshot.name')).to.equal('a/b');
  });
});

describeTransports('writing to a mount', ({ transport }) => {
  skipSuite(() => lacking('getfattr'));
  const box = useSandbox('suite', transport);
  let mnt: string;

  before(async () => {
    const image = await createImage(box(), 'vm.qcow2', 4 * MIB);
    await qemuIo(box(), image, ['write -P 1 0 1M']);
    await box().must('qemu-img', ['snapshot', '-c', 's', image]);
    mnt = await box().mount(image);
  });

  const attempts: readonly string[] = [
    'touch disk.raw',
    'touch new',
    'touch disk.snapshots/new.raw',
    'rm -f disk.raw',
    'rm -f disk.snapshots/s.raw',
    'rmdir disk.snapshots',
    'mv disk.raw other',
    'mv disk.snapshots/s.raw disk.snapshots/t.raw',
    'truncate -s 1M disk.raw',
    'truncate -s +1M disk.raw',
    'chmod 600 disk.raw',
    'chown 1 disk.raw',
    'setfattr -n user.x -v 1 disk.raw',
    'setfattr -x user.qcow2.image disk.raw',
    'mkdir new',
    'ln -s disk.raw new',
    'ln disk.raw new',
    'mkfifo new',
    'fallocate -p -o 0 -l 4096 disk.raw',
    'dd if=/dev/zero of=disk.raw count=1 conv=notrunc status=none',
    'dd if=/dev/zero of=disk.raw count=1 conv=notrunc oflag=direct status=none',
    ': <> disk.raw',
    'echo x > disk.info.json',
    'echo x >> disk.raw',
  ];
  for (const attempt of attempts) {
    it(`fails with EROFS: ${attempt}`, async () => {
      const { status, stderr } = await box().script(attempt, [], { cwd: mnt });
      expect(status).to.not.equal(0);
      expect(stderr).to.include('Read-only file system');
    });
  }

  it('is known to be impossible beforehand', async () => {
    const { status } = await box().script('test -w disk.raw', [], { cwd: mnt });
    expect(status).to.equal(1);
    expect((await box().script('test -r disk.raw', [], { cwd: mnt })).status).to.equal(0);
    expect((await box().script('test -x disk.raw', [], { cwd: mnt })).status).to.equal(1);
  });
});
