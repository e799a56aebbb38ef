/** Images of other formats, mounted: the disk is what QEMU reads of them, and damage is an I/O error, no crash. */
import { readFileSync, truncateSync } from 'node:fs';
import { expect } from 'chai';
import { noMounts, skipSuite, useSandbox } from '../helpers/mount.js';
import { qemuImg, tryQemuIo } from '../helpers/qemu.js';

const KINDS: readonly [format: string, ...options: string[]][] = [
  ['vmdk', '-o', 'subformat=streamOptimized'],
  ['vhdx', '-o', 'block_size=1M'],
  ['parallels', '-o', 'cluster_size=64k'],
];

describe('mounts of other formats', () => {
  skipSuite(noMounts);
  const sandbox = useSandbox();

  it('show the disk that QEMU reads', async () => {
    const source = sandbox().path('source');
    qemuImg('create', '-q', '-f', 'raw', source, '9437696');
    const writes = ['write -P 1 0 70k', 'write -P 2 3M 512', 'write -P 3 8M 300k'];
    expect(tryQemuIo('-f', 'raw', ...writes.flatMap((one) => ['-c', one]), source).status).to.equal(
      0,
    );
    for (const [n, [format, ...options]] of KINDS.entries()) {
      const image = sandbox().path(`disk${n}.${format}`);
      qemuImg('convert', '-f', 'raw', '-O', format, ...options, source, image);
      const raw = sandbox().path('raw');
      qemuImg('convert', '-f', format, '-O', 'raw', image, raw);
      const where = await sandbox().mount(image);
      const disk = readFileSync(`${where}/disk.raw`);
      expect(disk.equals(readFileSync(raw)), format).to.equal(true);
      await sandbox().unmount(where);
    }
  });

  it('of a file that was cut answer with an I/O error, and go on', async () => {
    const image = sandbox().path('cut.hds');
    qemuImg('create', '-q', '-f', 'parallels', '-o', 'cluster_size=64k', image, '1M');
    expect(tryQemuIo('-f', 'parallels', '-c', 'write -P 5 0 1M', image).status).to.equal(0);
    truncateSync(image, 512 << 10);
    const where = await sandbox().mount(image);
    expect(() => readFileSync(`${where}/disk.raw`)).to.throw('EIO');
    const start = await sandbox().must('head', ['-c', '65536', `${where}/disk.raw`]);
    expect(start).to.equal('\x05'.repeat(65536));
    await sandbox().unmount(where);
  });
});
