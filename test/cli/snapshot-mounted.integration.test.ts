/** `snapshot` on images that are mounted, by whatever path, and VM state that it saves. */
import { readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { noMounts, skipSuite, useSandbox } from '../helpers/mount.js';
import { createImage, MIB, noise } from '../helpers/mount-images.js';
import { contentOf, get, put } from '../helpers/mount-write.js';
import { qemuImg, tryQemuImg } from '../helpers/qemu.js';

const RW = ['-o', 'rw'];

describe('snapshot of a mounted image', () => {
  skipSuite(noMounts);
  const box = useSandbox();

  const snapshot = (...words: string[]) => box().cli(['snapshot', ...words]);
  const must = async (...words: string[]): Promise<string> => {
    const { status, stdout, stderr } = await snapshot(...words);
    expect({ status, stderr }).to.deep.equal({ status: 0, stderr: '' });
    return stdout;
  };

  it('goes through the mount, by the path of the image or a link to it', async () => {
    const image = await createImage(box(), 'vm.qcow2', 8 * MIB);
    const mnt = await box().mount(image, { options: RW });
    symlinkSync(image, `${image}.link`);
    put(`${mnt}/disk.raw`, 0, noise(1, MIB));
    await must('-c', 'one', image);
    put(`${mnt}/disk.raw`, 0, noise(2, MIB));
    await must('-c', 'two', `${image}.link`);
    await must('-c', 'two', mnt);
    expect(readdirSync(`${mnt}/disk.snapshots`)).to.include.members([
      'one.raw',
      'two#2.raw',
      'two#3.raw',
    ]);
    const listed = await must('-l', image);
    expect(await must('-l', mnt)).to.equal(listed);
    expect(await must(image)).to.equal('');
    await must('-d', 'two', image);
    expect((await snapshot('-d', 'none', image)).stderr).to.equal(
      "qcow2fs: Could not delete snapshot 'none': snapshot not found (no snapshot 'none')\n",
    );
    expect((await snapshot('-a', 'none', image)).stderr).to.match(
      /: Could not apply snapshot 'none': Failed to load snapshot: No such file or directory \(/,
    );
    await must('-a', 'one', image);
    expect(get(`${mnt}/disk.raw`, 0, MIB).equals(noise(1, MIB))).to.equal(true);
    const left = await must('-l', image);
    await box().unmount(mnt);
    expect(qemuImg('snapshot', '-l', image)).to.equal(left);
    expect(contentOf(image).subarray(0, MIB).equals(noise(1, MIB))).to.equal(true);
    // Nobody serves it any more.
    await must('-c', 'closed', image);
    expect(qemuImg('snapshot', '-l', image)).to.match(/closed/);
  });

  it('is taken by the mount point alone: other commands are told what to name', async () => {
    const image = await createImage(box(), 'vm.qcow2', 2 * MIB);
    const mnt = await box().mount(image, { options: RW });
    const where = `a mount of '${image}'`;
    for (const [words, advice] of [
      [['compact', mnt], `${where}: unmount it, and name that`],
      [['bitmap', '--add', mnt, 'b'], `${where}: unmount it, and name that`],
      [['diff', mnt, image], `${where}: name disk.raw in it`],
      [['io', '-c', 'length', mnt], `${where}: unmount it, and name that`],
      [['info', box().folder()], 'a folder: name an image'],
    ] as const) {
      expect((await box().cli(words)).stderr).to.contain(`(${advice})\n`);
    }
    // Only who can is told to share by force.
    const lock = await box().cli(['compact', '-n', image]);
    expect(lock.stderr).to.match(/shared "write" lock \(in use by \S+ \(process \d+\)\)\n$/);
    const info = await box().cli(['info', image]);
    expect(info.stderr).to.match(/\); force-share reads it all the same\)\n$/);
  });

  it('finds the mount that hides the image', async () => {
    const image = await createImage(box(), 'vm.qcow2', 2 * MIB);
    await box().mount(image, { options: RW, target: image });
    put(image, 0, noise(1, MIB));
    await must('-c', 'one', image);
    put(image, 0, noise(2, MIB));
    const listed = await must('-l', image);
    expect(listed).to.match(/^Snapshot list:\n.*\n1 +one /);
    await must('-a', 'one', image);
    expect(get(image, 0, MIB).equals(noise(1, MIB))).to.equal(true);
    await box().unmount(image);
    expect(qemuImg('snapshot', '-l', image)).to.equal(listed);
  });

  it('takes the overlay of a mount for the image that is written to', async () => {
    const image = await createImage(box(), 'vm.qcow2', 2 * MIB);
    const over = box().path('over.qcow2');
    const mnt = await box().mount(image, { options: ['-o', `overlay=${over}`] });
    await must('-c', 'kept', over);
    expect(readdirSync(`${mnt}/disk.snapshots`)).to.include('kept.raw');
    // The image itself is only read, and stays as it is.
    const refused = await snapshot('-c', 'x', image);
    expect(refused.status).to.equal(1);
    expect(refused.stderr).to.match(/Failed to get "write" lock/);
    expect(await must('-l', image)).to.equal('');
  });

  it('leaves a mount that only reads alone', async () => {
    const image = await createImage(box(), 'vm.qcow2', 2 * MIB);
    await must('-c', 'before', image);
    const mnt = await box().mount(image);
    expect(await must('-l', image)).to.equal(await must('-l', mnt));
    expect((await snapshot('-c', 'x', image)).stderr).to.match(/Failed to get "write" lock/);
    expect((await snapshot('-c', 'x', mnt)).stderr).to.match(/is mounted read-only/);
  });

  it('saves VM state with a closed image, and the mount shows it', async () => {
    const image = await createImage(box(), 'vm.qcow2', 8 * MIB);
    const state = noise(3, 3 * MIB + 777);
    writeFileSync(box().path('state'), state);
    await must('--vmstate', box().path('state'), '-c', 'saved', image);
    const mnt = await box().mount(image);
    expect(readFileSync(`${mnt}/disk.snapshots/saved.vmstate`).equals(state)).to.equal(true);
    await box().unmount(mnt);
    expect(qemuImg('snapshot', '-l', image)).to.match(/saved +3 MiB/);
    qemuImg('check', '-q', image);
    // It is kept through going back and another snapshot, as the disk is.
    await must('-a', 'saved', image);
    await must('-d', 'saved', image);
    expect(tryQemuImg('check', '-q', image).status).to.equal(0);
  });

  it('saves VM state through the mount, of its own files too', async () => {
    const image = await createImage(box(), 'vm.qcow2', 8 * MIB);
    const mnt = await box().mount(image, { options: RW });
    const state = noise(4, MIB + 5);
    writeFileSync(box().path('state'), state);
    await must('--vmstate', box().path('state'), '-c', 'one', image);
    const shown = (name: string) => readFileSync(`${mnt}/disk.snapshots/${name}.vmstate`);
    expect(shown('one').equals(state)).to.equal(true);
    await must('--vmstate', `${mnt}/disk.snapshots/one.vmstate`, '-c', 'copy: 2', mnt);
    expect(shown('copy: 2').equals(state)).to.equal(true);
    expect((await snapshot('--vmstate', box().directory, '-c', 'x', mnt)).status).to.equal(1);
    expect((await snapshot('--vmstate', '/gone', '-c', 'x', mnt)).status).to.equal(1);
    await box().unmount(mnt);
    qemuImg('check', '-q', image);
    expect(qemuImg('snapshot', '-l', image)).to.match(/copy: 2 +1 MiB/);
  });

  it('refuses VM state that is none, and where none is saved', async () => {
    const image = await createImage(box(), 'vm.qcow2', MIB);
    for (const [words, message] of [
      [['--vmstate', '/gone', '-c', 'x', image], /gone/],
      [['--vmstate', box().directory, '-c', 'x', image], /no regular file/],
      [['--vmstate', image, '-l', image], /'--vmstate' goes with '-c'/],
      [['--vmstate', image, '-d', 'x', image], /'--vmstate' goes with '-c'/],
    ] as const) {
      const { status, stderr } = await snapshot(...words);
      expect(status).to.equal(1);
      expect(stderr).to.match(message);
    }
    expect(qemuImg('snapshot', '-l', image)).to.equal('');
  });
});
