/** Mounts that are written to: what they do to the image, as QEMU sees it. */
import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  statSync,
  writeFileSync,
  writeSync,
  readdirSync,
} from 'node:fs';
import { expect } from 'chai';
import { CLI, lacking, useSandbox } from '../helpers/mount.js';
import { createImage, MIB, noise } from '../helpers/mount-images.js';
import { contentOf, get, put } from '../helpers/mount-write.js';
import { qemuImg, qemuRead } from '../helpers/qemu.js';
import { describeTransports } from '../helpers/transports.js';

const RW = ['-o', 'rw'];
const PARTITION_START = MIB;

/** A disk with one partition, from 1 MiB on, 2 MiB large. */
function partitionTable(start = PARTITION_START, size = 2 * MIB): Buffer {
  const sector = Buffer.alloc(512);
  sector[446 + 4] = 0x83;
  sector.writeUInt32LE(start / 512, 446 + 8);
  sector.writeUInt32LE(size / 512, 446 + 12);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

describeTransports('a mount that can be written to', ({ transport, itByKernel }) => {
  const box = useSandbox('test', transport);

  async function mount(size = 8 * MIB, options: readonly string[] = RW) {
    const image = await createImage(box(), 'vm.qcow2', size);
    return { image, mnt: await box().mount(image, { options }) };
  }

  it('keeps what is written, at any place and of any length', async () => {
    const { image, mnt } = await mount();
    const truth = Buffer.alloc(8 * MIB);
    for (const [seed, at, length] of [
      [1, 0, 5 * MIB],
      [2, 1000, 3],
      [3, 3 * MIB - 77, 200_000],
      [4, 8 * MIB - 513, 513],
    ] as const) {
      const bytes = noise(seed, length);
      put(`${mnt}/disk.raw`, at, bytes);
      truth.set(bytes, at);
    }
    expect(readFileSync(`${mnt}/disk.raw`).equals(truth)).to.equal(true);
    await box().unmount(mnt);
    expect(contentOf(image).equals(truth)).to.equal(true);
  });

  it('shows modes that are the image’s, and what cannot be written without', async () => {
    const { mnt } = await mount();
    const modes = ['disk.raw', 'disk.info.json', 'disk.snapshots'].map(
      (name) => statSync(`${mnt}/${name}`).mode & 0o777,
    );
    expect(modes).to.deep.equal([0o644, 0o444, 0o755]);
    const refused = (command: string) => box().script(command, [mnt]);
    expect((await refused('echo x >> "$0/disk.info.json"')).stderr).to.match(/denied/);
    expect((await refused('touch "$0/x"')).stderr).to.match(/not permitted/);
    expect((await refused('mkdir "$0/disk.snapshots/x"')).stderr).to.match(/not permitted/);
    expect((await refused('chmod 600 "$0/disk.raw"')).stderr).to.match(/not permitted/);
    expect(await refused('chmod 644 "$0/disk.raw" && touch "$0/disk.raw"')).to.include({
      status: 0,
    });
  });

  it('is replaced as a whole by dd, cut and grown by truncate', async () => {
    const { image, mnt } = await mount();
    put(`${mnt}/disk.raw`, 7 * MIB, noise(1, 100));
    const source = box().path('source');
    writeFileSync(source, noise(2, 2 * MIB + 700));
    await box().must('dd', [`if=${source}`, `of=${mnt}/disk.raw`, 'bs=65536', 'status=none']);
    expect(statSync(`${mnt}/disk.raw`).size).to.equal(2 * MIB + 1024);
    const wanted = Buffer.concat([readFileSync(source), Buffer.alloc(2 * MIB)], 4 * MIB);
    await box().must('truncate', ['-s', '4M', `${mnt}/disk.raw`]);
    expect(readFileSync(`${mnt}/disk.raw`).equals(wanted)).to.equal(true);
    const info = JSON.parse(readFileSync(`${mnt}/disk.info.json`, 'utf8'));
    expect(info['virtual-size']).to.equal(4 * MIB);
    await box().unmount(mnt);
    expect(contentOf(image).equals(wanted)).to.equal(true);
  });

  itByKernel('punches holes that read as zeroes and are seen as holes', async () => {
    const { image, mnt } = await mount();
    const disk = `${mnt}/disk.raw`;
    put(disk, 0, noise(1, 8 * MIB));
    const before = statSync(image).blocks;
    await box().must('fallocate', ['-p', '-o', '1M', '-l', '4M', disk]);
    await box().must('fallocate', ['-z', '-o', '6M', '-l', '1000', disk]);
    const truth = noise(1, 8 * MIB);
    truth.fill(0, MIB, 5 * MIB);
    truth.fill(0, 6 * MIB, 6 * MIB + 1000);
    expect(readFileSync(disk).equals(truth)).to.equal(true);
    await box().must('sync', [disk]);
    expect(statSync(image).blocks).to.be.below(before - (3 * MIB) / 512);
    await box().must('fallocate', ['-l', '9M', disk]);
    expect(statSync(disk).size).to.equal(9 * MIB);
    await box().unmount(mnt);
    expect(
      contentOf(image)
        .subarray(0, 8 * MIB)
        .equals(truth),
    ).to.equal(true);
  });

  it('shows the same bytes under every name at once, and a new partition table', async () => {
    const { mnt } = await mount();
    const [disk, partition] = [`${mnt}/disk.raw`, `${mnt}/disk.partitions/1.raw`];
    expect((await box().run('ls', [mnt])).stdout).to.not.match(/partitions/);
    put(disk, 0, partitionTable());
    expect((await box().run('ls', [mnt])).stdout).to.match(/partitions/);
    expect(statSync(partition).size).to.equal(2 * MIB);
    const open = openSync(partition, 'r+');
    for (let round = 0; round < 20; round++) {
      put(disk, PARTITION_START + 5000, noise(round, 3000));
      expect(get(partition, 5000, 3000).equals(noise(round, 3000))).to.equal(true);
      writeSync(open, noise(round + 100, 3000), 0, 3000, 7000);
      const seen = get(disk, PARTITION_START + 7000, 3000);
      expect(seen.equals(noise(round + 100, 3000))).to.equal(true);
    }
    put(disk, 0, partitionTable(4 * MIB, MIB));
    expect(statSync(partition).size).to.equal(MIB);
    writeSync(open, Buffer.from('old place'), 0, 9, 0);
    expect(get(disk, PARTITION_START, 9).toString()).to.equal('old place');
    expect(() => writeSync(open, Buffer.from('x'), 0, 1, 2 * MIB)).to.throw(/ENOSPC/);
    expect(() => ftruncateSync(open, 0)).to.throw(/EPERM/);
    closeSync(open);
    put(partition, 0, Buffer.from('new place'));
    expect(get(disk, 4 * MIB, 9).toString()).to.equal('new place');
  });

  itByKernel('can be mapped into memory', async function () {
    const missing = lacking('python3');
    if (missing !== null) {
      process.stdout.write(`    skipped: ${missing}\n`);
      return this.skip();
    }
    const { image, mnt } = await mount();
    put(`${mnt}/disk.raw`, 0, noise(1, MIB));
    const script = [
      'import mmap, sys',
      'f = open(sys.argv[1], "r+b")',
      'm = mmap.mmap(f.fileno(), 1 << 20)',
      'print(m[1000:1004].hex())',
      'm[70000:70005] = b"hello"',
      'm.flush(); m.close()',
    ].join('\n');
    const shown = await box().must('python3', ['-c', script, `${mnt}/disk.raw`]);
    expect(shown.trim()).to.equal(noise(1, MIB).toString('hex', 1000, 1004));
    expect(get(`${mnt}/disk.raw`, 70000, 5).toString()).to.equal('hello');
    await box().unmount(mnt);
    expect(contentOf(image).toString('latin1', 70000, 70005)).to.equal('hello');
  });

  it('makes, shows, renames and deletes snapshots as files', async () => {
    const { image, mnt } = await mount();
    const folder = `${mnt}/disk.snapshots`;
    put(`${mnt}/disk.raw`, 0, noise(1, 3 * MIB));
    await box().must('touch', [`${folder}/a%2Fb.raw`]);
    put(`${mnt}/disk.raw`, MIB, noise(2, MIB));
    await box().must('touch', [`${folder}/two.raw`]);
    await box().must('touch', [`${folder}/two.raw`]);
    expect(get(`${folder}/a%2Fb.raw`, 0, 3 * MIB).equals(noise(1, 3 * MIB))).to.equal(true);
    expect(get(`${folder}/two.raw`, MIB, MIB).equals(noise(2, MIB))).to.equal(true);
    await box().must('mv', [`${folder}/two.raw`, `${folder}/2.raw`]);
    const over = await box().run('mv', ['-f', `${folder}/2.raw`, `${folder}/a%2Fb.raw`]);
    expect(over.stderr).to.match(/File exists/);
    const open = openSync(`${folder}/a%2Fb.raw`, 'r');
    const busy = await box().run('rm', ['-f', `${folder}/a%2Fb.raw`]);
    expect(busy.stderr).to.match(/busy/);
    closeSync(open);
    await box().must('rm', ['-f', `${folder}/a%2Fb.raw`]);
    expect(readdirSync(folder)).to.have.members(['2.raw', '2.changed.json']);
    const out = await box().run('mv', [`${folder}/2.raw`, `${mnt}/x.raw`]);
    expect(out.stderr).to.match(/not permitted/);
    expect(readdirSync(folder)).to.have.members(['2.raw', '2.changed.json']);
    await box().unmount(mnt);
    qemuImg('check', '-q', image);
    expect(
      qemuRead(image, '2')
        .subarray(MIB, 2 * MIB)
        .equals(noise(2, MIB)),
    ).to.equal(true);
  });

  itByKernel('lists, creates, applies and deletes snapshots by command', async () => {
    const { image, mnt } = await mount();
    const snapshot = (...words: string[]) => box().cli(['snapshot', ...words, mnt]);
    put(`${mnt}/disk.raw`, 0, noise(1, MIB));
    expect(await snapshot('-c', 'first one')).to.include({ status: 0 });
    put(`${mnt}/disk.raw`, 0, noise(2, MIB));
    await box().must('truncate', ['-s', '12M', `${mnt}/disk.raw`]);
    const open = openSync(`${mnt}/disk.raw`, 'r');
    expect((await snapshot('-a', 'first one')).stderr).to.match(/the disk is in use/);
    closeSync(open);
    expect(await snapshot('-a', 'first one')).to.include({ status: 0, stderr: '' });
    expect(statSync(`${mnt}/disk.raw`).size).to.equal(8 * MIB);
    expect(get(`${mnt}/disk.raw`, 0, MIB).equals(noise(1, MIB))).to.equal(true);
    const listed = await snapshot('-l');
    await box().unmount(mnt);
    expect(listed.stdout).to.equal(qemuImg('snapshot', '-l', image));
    const again = await box().mount(image, { options: RW });
    expect(await box().cli(['snapshot', '-d', 'first one', again])).to.include({ status: 0 });
    expect((await box().cli(['snapshot', '-d', 'none', again])).stderr).to.match(
      /no snapshot 'none'/,
    );
    await box().unmount(again);
    expect(qemuImg('snapshot', '-l', image)).to.equal('');
  });

  itByKernel('shows mapped pages anew after it was reverted', async function () {
    const missing = lacking('python3');
    if (missing !== null) {
      process.stdout.write(`    skipped: ${missing}\n`);
      return this.skip();
    }
    const { mnt } = await mount();
    const mapped = async () => {
      const script =
        'import mmap, sys; f = open(sys.argv[1], "r+b"); print(mmap.mmap(f.fileno(), 0)[:8])';
      return (await box().must('python3', ['-c', script, `${mnt}/disk.raw`])).trim();
    };
    put(`${mnt}/disk.raw`, 0, Buffer.from('AAAAAAAA'));
    await box().must('touch', [`${mnt}/disk.snapshots/s.raw`]);
    put(`${mnt}/disk.raw`, 0, Buffer.from('BBBBBBBB'));
    expect(await mapped()).to.equal("b'BBBBBBBB'");
    await box().must(process.execPath, [CLI, 'snapshot', '-a', 's', mnt]);
    expect(await mapped()).to.equal("b'AAAAAAAA'");
  });

  itByKernel('holds a file system that is in order after it was used', async function () {
    const missing = lacking('mkfs.ext4', 'losetup', 'e2fsck');
    if (missing !== null) {
      process.stdout.write(`    skipped: ${missing}\n`);
      return this.skip();
    }
    const { image, mnt } = await mount(64 * MIB);
    const script = [
      'set -e',
      'mkfs.ext4 -q -F "$0/disk.raw"',
      'mkdir -p "$1"',
      'mount -o loop,discard "$0/disk.raw" "$1"',
      'cp -r "$2"/. "$1"/',
      'dd if=/dev/urandom of="$1/random" bs=1M count=20 status=none conv=fsync',
      'sum=$(md5sum < "$1/random")',
      'rm -r "$1/mount"',
      'fstrim "$1"',
      'umount "$1"',
      'e2fsck -fn "$0/disk.raw"',
      'mount -o loop,ro "$0/disk.raw" "$1"',
      'test "$sum" = "$(md5sum < "$1/random")"',
      'umount "$1"',
    ].join('\n');
    const source = new URL('.', import.meta.resolve('#src/errors.js')).pathname;
    const run = await box().script(script, [mnt, box().path('inner'), source]);
    expect(run, run.stderr).to.include({ status: 0 });
    await box().unmount(mnt);
    const raw = box().path('raw');
    writeFileSync(raw, contentOf(image));
    await box().must('e2fsck', ['-fn', raw]);
  });

  itByKernel('writes in parallel with several workers and names', async function () {
    const missing = lacking('fio');
    if (missing !== null) {
      process.stdout.write(`    skipped: ${missing}\n`);
      return this.skip();
    }
    const { image, mnt } = await mount(64 * MIB, ['-o', 'rw,workers=4']);
    await box().must('fio', [
      ...['--name=v', `--filename=${mnt}/disk.raw`, '--rw=randwrite', '--bsrange=512-128k'],
      ...['--bs_unaligned=0', '--blockalign=512', '--size=64M', '--io_size=48M', '--direct=1'],
      ...[
        '--ioengine=libaio',
        '--iodepth=32',
        '--verify=crc32c',
        '--do_verify=1',
        '--output=/dev/null',
      ],
    ]);
    const truth = readFileSync(`${mnt}/disk.raw`);
    await box().unmount(mnt);
    expect(contentOf(image).equals(truth)).to.equal(true);
  });
});
