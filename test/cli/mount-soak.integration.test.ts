/** Many processes at once on one mount, for a while: QCOW2FS_SOAK_SECONDS of them. */
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { noMounts, type Sandbox, skipSuite, useSandbox } from '../helpers/mount.js';
import {
  createImage,
  expectSame,
  KIB,
  MIB,
  makeRawDisk,
  noise,
  oracle,
  partitionsOf,
  qemuIo,
  snapshotOracle,
  wholeOf,
  writeSparse,
} from '../helpers/mount-images.js';

const READER = fileURLToPath(new URL('../helpers/soak-reader.js', import.meta.url));
const SECONDS = Number(process.env.QCOW2FS_SOAK_SECONDS ?? 8);
const READERS = 8;

/** A chain of small clusters over compressed ones, with a snapshot: much for a small cache to do. */
async function makeImage(sandbox: Sandbox): Promise<string> {
  const raw = await makeRawDisk(sandbox, 'base.raw', { size: 48 * MIB, table: 'mbr' });
  const base = sandbox.path('base.qcow2');
  const options = ['-t', 'unsafe', '-O', 'qcow2', '-c', '-o', 'compression_type=zstd'];
  await sandbox.must('qemu-img', ['convert', ...options, raw, base]);
  const backing = { file: base, format: 'qcow2' };
  const top = await createImage(sandbox, 'top.qcow2', 64 * MIB, 'cluster_size=4k', backing);
  const pattern = sandbox.path('pattern');
  writeSparse(pattern, MIB, [{ at: 0, bytes: noise(9, MIB) }]);
  const writes = Array.from({ length: 40 }, (_, index) => {
    return `write -s ${pattern} ${(1 + index * 1.5) * MIB + 3 * KIB} ${(index % 7) * 50_001 + 5}`;
  });
  await qemuIo(sandbox, top, writes.slice(0, 20));
  await sandbox.must('qemu-img', ['snapshot', '-c', 'then', top]);
  await qemuIo(sandbox, top, [...writes.slice(10), `write -z 20M 300k`]);
  return top;
}

describe('a mount under load', function () {
  this.timeout((SECONDS + 60) * 1000);
  skipSuite(noMounts);
  const box = useSandbox();

  it('reads right for all, direct and buffered, while others list and readers are killed', async () => {
    const sandbox = box();
    const image = await makeImage(sandbox);
    const now = await oracle(sandbox, image);
    const then = await snapshotOracle(sandbox, image, 'then');
    const log = sandbox.path('log');
    const options = ['-o', `cache-size=256K,log=${log}`];
    const mnt = await sandbox.mount(image, { options });
    const files = [
      ...[`${mnt}/disk.raw`, now, '0'],
      ...[`${mnt}/disk.snapshots/then.raw`, then, '0'],
    ];
    for (const [number, { start }] of await partitionsOf(sandbox, now)) {
      files.push(`${mnt}/disk.partitions/${number}.raw`, now, String(start));
    }
    let reading = true;
    const readers = Array.from({ length: READERS }, (_, index) =>
      sandbox.run(process.execPath, [READER, String(index + 1), String(SECONDS), ...files]),
    );
    const lookers = ['ls -lR "$0"', 'find "$0" -type f -exec stat -f {} +; stat "$0"/disk*'].map(
      async (script) => {
        while (reading) expect((await sandbox.script(script, [mnt])).status).to.equal(0);
      },
    );
    const killed = (async () => {
      while (reading) {
        const victims = ['iflag=direct', 'iflag=nocache'].map((flag) =>
          sandbox.start('dd', [`if=${mnt}/disk.raw`, 'of=/dev/null', 'bs=1M', flag]),
        );
        await new Promise((done) => setTimeout(done, 15));
        for (const victim of victims) victim.kill('SIGKILL');
        await Promise.all(victims.map((victim) => victim.ended()));
      }
    })();
    const outcomes = await Promise.all(readers);
    reading = false;
    await Promise.all([...lookers, killed]);
    for (const { status, stderr, stdout } of outcomes) {
      expect({ status, stderr }).to.deep.equal({ status: 0, stderr: '' });
      expect(Number(stdout)).to.be.above(10);
    }
    await expectSame(sandbox, `${mnt}/disk.raw`, wholeOf(now));
    await sandbox.unmount(mnt);
    expect(await sandbox.must('cat', [log]), 'the log').to.equal('');
  });
});
