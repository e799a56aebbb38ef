/** Images on block devices: made there, written to up to the device's end, and no further. */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { lacking, noMounts, skipSuite, useSandbox } from '../helpers/mount.js';
import { MIB, noise } from '../helpers/mount-images.js';
import { contentOf, put } from '../helpers/mount-write.js';
import { qemuImg, qemuIo, qemuRead, tryQemuImg } from '../helpers/qemu.js';

const DEVICE_SIZE = 4 * MIB;
const DISK_SIZE = 16 * MIB;
const PIECE = 128 * 1024;

describe('an image on a block device', () => {
  skipSuite(() => noMounts() ?? lacking('losetup'));
  const sandbox = useSandbox();

  async function makeDevice(): Promise<string> {
    const host = sandbox().path('host');
    writeFileSync(host, '');
    truncateSync(host, DEVICE_SIZE);
    return (await sandbox().must('losetup', ['-f', '--show', host])).trim();
  }

  async function run(...words: string[]): Promise<string> {
    const { status, stdout, stderr } = await sandbox().cli(words);
    expect(status, stderr).to.equal(0);
    return stdout;
  }

  it('grows to the end of the device, and loses nothing where that is full', async () => {
    const device = await makeDevice();
    await run('create', '-q', '-f', 'qcow2', device, `${DISK_SIZE}`);
    const target = await sandbox().mount(device, { options: ['-o', 'rw'] });
    const disk = Buffer.alloc(DISK_SIZE);
    const write = (at: number, bytes: Buffer) => {
      put(`${target}/disk.raw`, at, bytes);
      bytes.copy(disk, at);
    };
    write(0, noise(1, MIB));
    const before = Buffer.from(disk);
    writeFileSync(`${target}/disk.snapshots/first.raw`, '', { flag: 'a' });
    let pieces = 0;
    const fill = () => {
      for (; pieces < DEVICE_SIZE / PIECE; pieces++) write(pieces * PIECE, noise(2, PIECE));
    };
    expect(fill).to.throw(/ENOSPC/);
    // What did not fit may be there in part.
    const refused = [pieces * PIECE, (pieces + 1) * PIECE] as const;
    write(0, noise(3, PIECE));
    await sandbox().unmount(target);
    const found = contentOf(device);
    found.copy(disk, refused[0], refused[0], refused[1]);
    expect(found.equals(disk)).to.equal(true);
    expect(qemuRead(device, 'first').equals(before)).to.equal(true);
    const check = JSON.parse(await run('check', '--output=json', device));
    expect(check).to.deep.equal(JSON.parse(qemuImg('check', '--output=json', device)));
    expect(check['image-end-offset']).to.be.within(DEVICE_SIZE - PIECE, DEVICE_SIZE);
  });

  it('is converted to and from, and what is too large is refused', async () => {
    const device = await makeDevice();
    const disk = Buffer.alloc(DISK_SIZE);
    noise(4, 2 * MIB).copy(disk, MIB);
    const source = sandbox().path('source');
    writeFileSync(source, disk);
    for (const more of [[], ['-n']]) {
      await run('convert', ...more, '-f', 'raw', '-O', 'qcow2', source, device);
      expect(contentOf(device).equals(disk)).to.equal(true);
    }
    await run('resize', device, `${2 * DISK_SIZE}`);
    await run('snapshot', '-c', 'one', device);
    const back = sandbox().path('back');
    await run('convert', '-l', 'one', '-O', 'raw', device, back);
    expect(readFileSync(back).subarray(0, DISK_SIZE).equals(disk)).to.equal(true);
    writeFileSync(source, noise(5, 5 * MIB));
    const words = ['convert', '-f', 'raw', '-O', 'qcow2', source, device];
    const { status, stderr } = await sandbox().cli(words);
    expect(status).to.equal(1);
    expect(stderr).to.match(/no free cluster \(the device has 4194304 bytes\)/);
  });

  it("is refused for writing where the device is read-only, in QEMU's words", async () => {
    const host = sandbox().path('host');
    qemuImg('create', '-q', '-f', 'qcow2', host, `${DISK_SIZE}`);
    truncateSync(host, DEVICE_SIZE);
    const device = (await sandbox().must('losetup', ['-r', '-f', '--show', host])).trim();
    const overlay = sandbox().path('overlay');
    qemuImg('create', '-q', '-f', 'qcow2', '-b', device, '-F', 'qcow2', overlay);
    for (const words of [
      ['snapshot', '-c', 'one', device],
      ['check', '-r', 'all', device],
      ['resize', device, '20M'],
      ['commit', overlay],
      ['convert', '-O', 'qcow2', overlay, device],
      ['convert', '-n', '-O', 'qcow2', overlay, device],
      ['create', '-q', '-f', 'qcow2', device, '1M'],
    ]) {
      const { status, stderr } = await sandbox().cli(words);
      const theirs = tryQemuImg(...words);
      const ours = stderr.replace('qcow2fs: ', 'qemu-img: ');
      expect({ status, stderr: ours }).to.deep.equal({ status: 1, stderr: theirs.stderr });
      expect(stderr).to.contain('The device is not writable: Permission denied');
    }
    const mounted = await sandbox().cli([device, sandbox().folder(), '-o', 'rw']);
    expect(mounted).to.include({ status: 1 });
    expect(mounted.stderr).to.contain('The device is not writable');
    await run('check', device);
  });

  it('names the process that has it, where it is in use', async () => {
    const device = await makeDevice();
    qemuImg('create', '-q', '-f', 'qcow2', device, `${DISK_SIZE}`);
    const target = await sandbox().mount(device, { options: ['-o', 'rw'] });
    const before = readFileSync(device);
    for (const words of [
      ['compact', device],
      ['check', '-r', 'all', device],
      ['create', '-q', '-f', 'qcow2', device, '1M'],
    ]) {
      const { status, stderr } = await sandbox().cli(words);
      expect(status).to.equal(1);
      expect(stderr).to.match(/Failed to get "write" lock \(in use by \S+ \(process \d+\)\)\n$/);
    }
    expect(readFileSync(device).equals(before)).to.equal(true);
    await sandbox().unmount(target);
  });

  it('is compacted: its end moves, and the device keeps its size', async () => {
    const device = await makeDevice();
    qemuImg('create', '-q', '-f', 'qcow2', device, `${DISK_SIZE}`);
    qemuIo(device, 'write -P 1 0 1M', 'write -P 2 1M 1M', 'discard 0 1M');
    const before = qemuRead(device);
    expect(await run('compact', '-n', device)).to.match(/^Image would end at .* of the device,/);
    expect(await run('compact', device)).to.match(/^Image moved to end at .* keeps its size\.\n$/);
    expect(await run('compact', device)).to.equal('Image is compact.\n');
    expect(qemuRead(device).equals(before)).to.equal(true);
    const check = JSON.parse(qemuImg('check', '--output=json', device));
    const { after, saved } = JSON.parse(await run('compact', '--output=json', device));
    expect([after, saved]).to.deep.equal([check['image-end-offset'], 0]);
  });
});
