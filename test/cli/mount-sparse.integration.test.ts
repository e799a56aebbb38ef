/** SEEK_DATA, SEEK_HOLE and st_blocks tell the truth over the whole chain. */
import { statSync } from 'node:fs';
import { expect } from 'chai';
import { lacking, noMounts, type Sandbox, skipSuite, useSandbox } from '../helpers/mount.js';
import {
  checkRuns,
  createImage,
  expectSame,
  KIB,
  MIB,
  noise,
  oracle,
  partitionsOf,
  qemuIo,
  type Run,
  runsOf,
  snapshotOracle,
  wholeOf,
  writeSparse,
} from '../helpers/mount-images.js';

const CLUSTER = 64 * KIB;

/** A raw base, a compressed middle and a top, with a partition table in the base. */
async function makeChain(sandbox: Sandbox): Promise<string> {
  const base = sandbox.path('base.raw');
  writeSparse(base, 32 * MIB, [
    { at: 4 * MIB, bytes: noise(1, MIB) },
    { at: 20 * MIB + 4096, bytes: noise(2, 8192) },
  ]);
  const table = 'label: dos\nstart=8192, size=16384\nstart=36864, size=8192';
  await sandbox.must('bash', ['-c', 'sfdisk -q --no-reread "$0" <<< "$1"', base, table]);
  const middle = await createImage(sandbox, 'middle.qcow2', 40 * MIB, '', {
    file: base,
    format: 'raw',
  });
  await qemuIo(sandbox, middle, [
    `write -c -P 3 ${8 * MIB} ${CLUSTER}`,
    `write -P 4 ${36 * MIB} ${3 * CLUSTER}`,
  ]);
  const top = await createImage(sandbox, 'top.qcow2', 64 * MIB, '', {
    file: middle,
    format: 'qcow2',
  });
  await qemuIo(sandbox, top, [`write -P 5 ${60 * MIB} 100`, `write -P 6 ${21 * MIB} ${CLUSTER}`]);
  await sandbox.must('qemu-img', ['snapshot', '-c', 'before', top]);
  await qemuIo(sandbox, top, [`write -z ${4 * MIB} ${2 * CLUSTER}`, `write -z 21M ${CLUSTER}`]);
  return top;
}

function dataOf(runs: readonly Run[]): number {
  return runs.reduce((sum, { hole, start, end }) => sum + (hole ? 0 : end - start), 0);
}

describe('holes in a mount', () => {
  skipSuite(() => noMounts() ?? lacking('xfs_io', 'sfdisk'));
  const box = useSandbox('suite');
  let mnt: string;
  let image: string;
  let truth: string;

  before(async () => {
    image = await makeChain(box());
    truth = await oracle(box(), image);
    mnt = await box().mount(image);
  });

  it('are those of the chain: zero clusters over data, and what no layer has', async () => {
    const runs = await runsOf(box(), `${mnt}/disk.raw`);
    checkRuns(runs, wholeOf(truth));
    const isHole = (offset: number) =>
      runs.find(({ start, end }) => start <= offset && offset < end)!.hole;
    expect(isHole(2 * MIB), 'in no layer').to.equal(true);
    expect(isHole(4 * MIB), 'zero cluster over data').to.equal(true);
    expect(isHole(4 * MIB + 2 * CLUSTER), 'data of the base').to.equal(false);
    expect(isHole(8 * MIB), 'compressed').to.equal(false);
    expect(isHole(21 * MIB), 'zero cluster over its own').to.equal(true);
    expect(isHole(35 * MIB), 'behind the end of the base').to.equal(true);
    expect(isHole(60 * MIB), 'top').to.equal(false);
    expect(runs.at(-1)!.hole).to.equal(true);
    expect(dataOf(runs)).to.be.below(2 * MIB);
  });

  it('are those of a snapshot in its file', async () => {
    const then = await snapshotOracle(box(), image, 'before');
    const runs = await runsOf(box(), `${mnt}/disk.snapshots/before.raw`);
    checkRuns(runs, wholeOf(then));
    expect(dataOf(runs)).to.be.within(MIB, 3 * MIB);
  });

  it('are those of a partition, from its own start on', async () => {
    const partitions = await partitionsOf(box(), truth);
    expect([...partitions.keys()]).to.deep.equal([1, 2]);
    for (const [number, window] of partitions) {
      const runs = await runsOf(box(), `${mnt}/disk.partitions/${number}.raw`);
      checkRuns(runs, window);
      expect(runs.some(({ hole }) => hole)).to.equal(true);
      expect(runs.some(({ hole }) => !hole)).to.equal(true);
    }
  });

  it('make copies sparse', async () => {
    for (const mode of ['auto', 'always']) {
      const copy = box().path(`copy-${mode}`);
      await box().must('cp', [`--sparse=${mode}`, `${mnt}/disk.raw`, copy]);
      await expectSame(box(), copy, wholeOf(truth));
      expect(statSync(copy).blocks * 512, mode).to.be.below(3 * MIB);
    }
    const archived = await box().must('bash', ['-c', 'tar -S -cf - -C "$0" disk.raw | wc -c', mnt]);
    expect(Number(archived)).to.be.below(3 * MIB);
  });

  it('end where SEEK_DATA finds none: ENXIO, and beyond the end as well', async () => {
    const { size } = statSync(`${mnt}/disk.raw`);
    for (const [seek, found] of [
      [`-d ${62 * MIB}`, 'EOF'],
      [`-h ${62 * MIB}`, `HOLE\t${62 * MIB}`],
      [`-d ${size}`, 'EOF'],
      [`-h ${size}`, 'EOF'],
    ]) {
      const shown = await box().must('xfs_io', ['-r', '-c', `seek ${seek}`, `${mnt}/disk.raw`]);
      expect(shown, seek).to.include(found);
    }
  });
});

describe('st_blocks in a mount', () => {
  skipSuite(noMounts);
  const box = useSandbox();

  it('tells what the image takes, not what the disk could', async () => {
    const sandbox = box();
    const image = await createImage(sandbox, 'disk.qcow2', 64 * MIB);
    await qemuIo(sandbox, image, [`write -P 1 8M 2M`]);
    await sandbox.must('qemu-img', ['snapshot', '-c', 's', image]);
    const mnt = await sandbox.mount(image);
    for (const name of ['disk.raw', 'disk.snapshots/s.raw']) {
      const { blocks, size, blksize } = statSync(`${mnt}/${name}`);
      expect(size).to.equal(64 * MIB);
      expect(blocks * 512, name).to.be.within(2 * MIB, 3 * MIB);
      expect(blksize).to.equal(CLUSTER);
    }
    const used = await sandbox.must('du', ['-k', '--apparent-size', `${mnt}/disk.raw`]);
    expect(Number.parseInt(used, 10)).to.equal(64 * KIB);
  });

  it('is never 0 for data, so that tar -S loses none', async () => {
    const sandbox = box();
    const base = sandbox.path('base.raw');
    writeSparse(base, 8 * MIB, [{ at: MIB, bytes: noise(1, 6 * MIB) }]);
    const table = 'label: dos\nstart=2048, size=8192';
    await sandbox.must('bash', ['-c', 'sfdisk -q --no-reread "$0" <<< "$1"', base, table]);
    const backing = { file: base, format: 'raw' };
    const image = await createImage(sandbox, 'top.qcow2', 8 * MIB, '', backing);
    await sandbox.must('qemu-img', ['snapshot', '-c', 'sn', image]);
    const mnt = await sandbox.mount(image);
    const extract = 'tar -S -cf - -C "$0" "$1" | tar -xOf - | cmp - "$0/$1"';
    for (const name of ['disk.raw', 'disk.partitions/1.raw', 'disk.snapshots/sn.raw']) {
      expect(statSync(`${mnt}/${name}`).blocks, name).to.be.above(0);
      const outcome = await sandbox.script(extract, [mnt, name]);
      expect(outcome, name).to.deep.equal({ status: 0, stdout: '', stderr: '' });
    }
  });

  it('of an image on a block device is counted by its map', async () => {
    const sandbox = box();
    const image = await createImage(sandbox, 'disk.qcow2', 8 * MIB);
    await qemuIo(sandbox, image, ['write -P 1 1M 2M']);
    const device = (await sandbox.must('losetup', ['-f', '--show', '-r', image])).trim();
    const mnt = await sandbox.mount(device, { options: ['-o', 'format=qcow2'] });
    expect(statSync(`${mnt}/disk.raw`).blocks * 512).to.equal(2 * MIB);
    await sandbox.unmount(mnt);
  });

  it('of a partition counts what lies in it, and never more than the image takes', async () => {
    const sandbox = box();
    const raw = sandbox.path('disk.raw');
    const text = Buffer.alloc(8 * MIB, 'compresses well. ');
    writeSparse(raw, 40 * MIB, [{ at: 2 * MIB, bytes: text }]);
    const table = 'label: dos\nstart=2048, size=40960\nstart=49152, size=16384';
    await sandbox.must('bash', ['-c', 'sfdisk -q --no-reread "$0" <<< "$1"', raw, table]);
    const image = sandbox.path('disk.qcow2');
    await sandbox.must('qemu-img', ['convert', '-O', 'qcow2', '-c', raw, image]);
    const { blocks: taken } = statSync(image);
    const ofImage = await sandbox.mount(image);
    expect(statSync(`${ofImage}/disk.partitions/1.raw`).blocks).to.be.within(1, taken);
    expect(statSync(`${ofImage}/disk.partitions/2.raw`).blocks).to.equal(0);
    const { blocks: takenRaw } = statSync(raw);
    const ofRaw = await sandbox.mount(raw);
    expect(statSync(`${ofRaw}/disk.partitions/1.raw`).blocks).to.be.within(1, takenRaw);
    expect(statSync(`${ofRaw}/disk.partitions/2.raw`).blocks).to.be.below(20);
  });
});
