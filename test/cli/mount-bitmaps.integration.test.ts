/** Bitmaps of an image that is mounted: kept up to date, shown, and saved at the end. */
import { readdirSync, readFileSync, truncateSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { type Mount, serversOf } from '#src/fuse/mountinfo.js';
import { processStart } from '#src/sys/process.js';
import { noMounts, skipSuite, useSandbox } from '../helpers/mount.js';
import { MIB, noise } from '../helpers/mount-images.js';
import { put } from '../helpers/mount-write.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { qemuBitmaps, qemuDirty } from '../helpers/qemu-bitmaps.js';

const RW = ['-o', 'rw'];
const KIB = 1024;

describe('bitmaps of a mounted image', () => {
  skipSuite(noMounts);
  const box = useSandbox();

  function image(): string {
    const path = box().path('vm.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', path, '8M');
    qemuImg('bitmap', '--add', path, 'on');
    qemuImg('bitmap', '--add', '-g', '4k', path, 'fine/../one');
    qemuIo(path, 'write 7M 64k');
    qemuImg('bitmap', '--add', '--disable', path, 'off');
    return path;
  }

  function shown(mnt: string, name: string): [number, number][] {
    const { dirty } = JSON.parse(readFileSync(`${mnt}/disk.bitmaps/${name}.json`, 'utf8'));
    return dirty.map(({ start, length }: { start: number; length: number }) => [start, length]);
  }

  it('are shown as they are', async () => {
    const path = image();
    const mnt = await box().mount(path);
    const names = ['on.json', 'fine%2F..%2Fone.json', 'off.json'];
    expect(readdirSync(`${mnt}/disk.bitmaps`).sort()).to.deep.equal(names.sort());
    expect(JSON.parse(readFileSync(`${mnt}/disk.bitmaps/on.json`, 'utf8'))).to.deep.equal({
      name: 'on',
      granularity: 65536,
      flags: ['auto'],
      'virtual-size': 8 * MIB,
      unit: 65536,
      dirty: [{ start: 7 * MIB, length: 64 * KIB }],
    });
    expect(shown(mnt, 'off')).to.deep.equal([]);
  });

  it('record what is written, punched and resized, and are true behind the end', async () => {
    const path = image();
    const mnt = await box().mount(path, { options: RW });
    const fine = 'fine%2F..%2Fone';
    put(`${mnt}/disk.raw`, MIB + 100, noise(1, 5000));
    const own = [MIB, 8 * KIB];
    expect(shown(mnt, fine)).to.deep.equal([own, [7 * MIB, 64 * KIB]]);
    const { status } = await box().script('fallocate -p -o 2M -l 64K "$0/disk.raw"', [mnt]);
    expect(status).to.equal(0);
    truncateSync(`${mnt}/disk.raw`, 4 * MIB);
    truncateSync(`${mnt}/disk.raw`, 16 * MIB);
    put(`${mnt}/disk.raw`, 15 * MIB, noise(2, MIB));
    const wanted = [own, [2 * MIB, 64 * KIB], [15 * MIB, MIB]];
    expect(shown(mnt, fine)).to.deep.equal(wanted);
    expect(shown(mnt, 'off')).to.deep.equal([]);
    // Its own words, though QEMU would take it for inconsistent now.
    expect(readFileSync(`${mnt}/disk.bitmaps/on.json`, 'utf8')).to.match(/"flags":\["auto"\]/);
    await box().unmount(mnt);
    expect(qemuDirty(path, 'fine/../one')).to.deep.equal(wanted);
    expect(qemuDirty(path, 'on')).to.deep.equal([[MIB, 64 * KIB], ...wanted.slice(1)]);
    expect(qemuDirty(path, 'off')).to.deep.equal([]);
    expect(qemuBitmaps(path).map(({ flags }) => flags)).to.deep.equal([['auto'], ['auto'], []]);
    qemuImg('check', path);
  });

  it('are as they were where nothing was written, and left in use where the mount is killed', async () => {
    const path = image();
    const before = readFileSync(path);
    const mnt = await box().mount(path, { options: RW });
    readFileSync(`${mnt}/disk.raw`);
    await box().unmount(mnt);
    expect(readFileSync(path).equals(before)).to.equal(true);
    const again = await box().mount(path, { options: RW });
    put(`${again}/disk.raw`, 0, noise(1, 512));
    const [{ minor }] = box().mounts() as [Mount];
    const servers = serversOf(minor).map((pid) => ({ pid, start: processStart(pid) }));
    for (const { pid } of servers) process.kill(pid, 'SIGKILL');
    // Its locks go with it.
    while (servers.some(({ pid, start }) => processStart(pid) === start)) await sleep(10);
    const flags = qemuBitmaps(path).map((bitmap) => bitmap.flags.join());
    expect(flags).to.deep.equal(['in-use,auto', 'in-use,auto', '']);
  });

  it('forbid to go back to a snapshot', async () => {
    const path = image();
    qemuImg('snapshot', '-c', 's', path);
    const mnt = await box().mount(path, { options: RW });
    const { status, stderr } = await box().cli(['snapshot', '-a', 's', mnt]);
    expect(stderr).to.match(/Could not apply snapshot 's': Device has active dirty bitmaps/);
    expect(status).to.equal(1);
  });
});
