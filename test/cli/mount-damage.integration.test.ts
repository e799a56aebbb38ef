/** Damaged images in a mount: what is whole can be read, what is not answers EIO and is logged. */
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { expect } from 'chai';
import { lacking, noMounts, type Sandbox, skipSuite, useSandbox } from '../helpers/mount.js';
import { expectSame, MIB, noise, wholeOf, writeSparse } from '../helpers/mount-images.js';

const CLUSTER = 65_536;
const SIZE = 4 * MIB;

/** Byte offsets in the file, from docs/interop/qcow2.txt. */
const HEADER = { l1TableOffset: 40, incompatibleFeatures: 72, snapshotsOffset: 64 } as const;

function patch(image: string, offset: number, value: bigint): void {
  const fd = openSync(image, 'r+');
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  writeSync(fd, bytes, 0, 8, offset);
  closeSync(fd);
}

function peek(image: string, offset: number): bigint {
  const fd = openSync(image, 'r');
  const bytes = Buffer.alloc(8);
  readSync(fd, bytes, 0, 8, offset);
  closeSync(fd);
  return bytes.readBigUInt64BE();
}

const OFFSET_BITS = 0x00ff_ffff_ffff_fe00n;

/** Where the L2 entry of a guest cluster of the first L2 table lies. */
function l2EntryAt(image: string, cluster: number): number {
  const l1 = Number(peek(image, HEADER.l1TableOffset));
  return Number(peek(image, l1) & OFFSET_BITS) + cluster * 8;
}

/** An image full of noise, and the same as a raw file. */
async function makeImage(sandbox: Sandbox, ...flags: string[]) {
  const raw = sandbox.path('truth.raw');
  writeSparse(raw, SIZE, [{ at: 0, bytes: noise(3, SIZE) }]);
  const image = sandbox.path('vm.qcow2');
  await sandbox.must('qemu-img', ['convert', '-O', 'qcow2', ...flags, raw, image]);
  return { raw, image };
}

async function mountWithLog(sandbox: Sandbox, image: string) {
  const log = sandbox.path('log');
  const mnt = await sandbox.mount(image, { options: [`--log=${log}`] });
  return { mnt, file: `${mnt}/disk.raw`, lines: () => readFileSync(log, 'utf8').split('\n') };
}

/** Which clusters answer EIO; all others must be right. */
async function brokenClusters(
  sandbox: Sandbox,
  file: string,
  raw: string,
  flags: string,
): Promise<number[]> {
  const broken: number[] = [];
  for (let cluster = 0; cluster < SIZE / CLUSTER; cluster++) {
    const place = [`bs=${CLUSTER}`, `skip=${cluster}`, 'count=1', 'status=none', flags];
    const script = 'dd if="$0" $1 | cmp -n 65536 -i "0:$2" - "$3"';
    const words = [file, place.join(' '), String(cluster * CLUSTER), raw];
    const read = await sandbox.script(script, words);
    if (read.stderr.includes('Input/output error')) broken.push(cluster);
    else expect(read, `cluster ${cluster}`).to.deep.equal({ status: 0, stdout: '', stderr: '' });
  }
  return broken;
}

describe('a damaged image in a mount', () => {
  skipSuite(() => noMounts() ?? lacking('xfs_io'));
  const box = useSandbox();

  const entries: readonly [string, bigint, RegExp][] = [
    ['beyond the end of the file', 0x8000_0000_4000_0000n, /data at offset 1073741824 lies past/],
    ['that is not aligned', 0x8000_0000_0005_0200n, /cluster offset 0x50200 is not a multiple/],
  ];
  for (const [name, entry, words] of entries) {
    it(`with an L2 entry ${name}: EIO there and nowhere else, logged with the offset`, async () => {
      const { raw, image } = await makeImage(box());
      patch(image, l2EntryAt(image, 21), entry);
      const { file, lines } = await mountWithLog(box(), image);
      expect(await brokenClusters(box(), file, raw, 'iflag=direct')).to.deep.equal([21]);
      expect(await brokenClusters(box(), file, raw, 'iflag=fullblock')).to.deep.equal([21]);
      const told = lines().filter((line) => words.test(line));
      expect(told.length).to.be.within(1, 3);
      expect(told[0]).to.include(' error READ node 8: ').and.include(image);
    });
  }

  it('with compressed data that is not: EIO for that cluster only', async () => {
    const raw = box().path('truth.raw');
    const text = Buffer.from('some text, and some more of it. ');
    writeSparse(raw, SIZE, [{ at: 0, bytes: Buffer.alloc(SIZE, text) }]);
    const image = box().path('vm.qcow2');
    await box().must('qemu-img', ['convert', '-c', '-O', 'qcow2', raw, image]);
    const descriptor = peek(image, l2EntryAt(image, 9)) & 0x003f_ffff_ffff_ffffn;
    patch(image, Number(descriptor), 0xffff_ffff_ffff_ffffn);
    const { file, lines } = await mountWithLog(box(), image);
    const broken = await brokenClusters(box(), file, raw, 'iflag=direct');
    expect(broken).to.include(9).and.have.lengthOf(1);
    expect(lines().some((line) => line.includes(image))).to.equal(true);
  });

  it('cut off: EIO for what is gone, the rest reads', async () => {
    const { raw, image } = await makeImage(box());
    const entry = Number(peek(image, l2EntryAt(image, 40)) & OFFSET_BITS);
    truncateSync(image, entry);
    const { file } = await mountWithLog(box(), image);
    const broken = await brokenClusters(box(), file, raw, 'iflag=direct');
    expect(broken).to.deep.equal(Array.from({ length: 24 }, (_, index) => 40 + index));
  });

  it('cut off while it is mounted: EIO, and the mount lives on', async () => {
    const { raw, image } = await makeImage(box());
    const { mnt, file } = await mountWithLog(box(), image);
    truncateSync(image, 1000);
    const broken = await brokenClusters(box(), file, raw, 'iflag=direct');
    expect(broken).to.have.lengthOf(SIZE / CLUSTER);
    expect(readdirSync(mnt)).to.include('disk.raw');
    await box().unmount(mnt);
  });

  it('whose whole L1 table leads nowhere still shows its tree', async () => {
    const { image } = await makeImage(box());
    patch(image, Number(peek(image, HEADER.l1TableOffset)), 0x8000_0000_4000_0000n);
    const { mnt, file } = await mountWithLog(box(), image);
    expect(readdirSync(mnt)).to.have.members(['disk.raw', 'disk.snapshots', 'disk.info.json']);
    expect(statSync(file).size).to.equal(SIZE);
    expect((await box().run('cat', [file])).stderr).to.include('Input/output error');
    expect((await box().run('xfs_io', ['-r', '-c', 'seek -d 0', file])).stderr).to.include(
      'Input/output error',
    );
  });

  it('with a broken snapshot shows the others, and the disk', async () => {
    const { raw, image } = await makeImage(box());
    for (const name of ['good', 'bad']) {
      await box().must('qemu-img', ['snapshot', '-c', name, image]);
    }
    const first = Number(peek(image, HEADER.snapshotsOffset));
    const length = 40 + 24 + '1'.length + 'good'.length;
    patch(image, first + Math.ceil(length / 8) * 8, 0x1234_5678n);
    const mnt = box().folder();
    const mounted = await box().cli([image, mnt]);
    expect(mounted.status).to.equal(0);
    expect(mounted.stderr).to.match(/^qcow2fs: warning: .*snapshot 'bad'/);
    const folder = `${mnt}/disk.snapshots`;
    const names = readdirSync(folder).filter((name) => name.endsWith('.raw'));
    expect(names).to.have.members(['good.raw', 'bad.raw']);
    await expectSame(box(), `${mnt}/disk.raw`, wholeOf(raw));
    await expectSame(box(), `${folder}/good.raw`, wholeOf(raw));
    expect((await box().run('cat', [`${folder}/bad.raw`])).stderr).to.include('Input/output error');
    const listed = await box().run('ls', ['-l', folder]);
    expect(listed.stdout).to.include(' good.raw');
  });

  for (const [name, bit, words] of [
    ['dirty', 1n, /^qcow2fs: warning: .*not closed cleanly/],
    ['corrupt', 2n, /^qcow2fs: warning: .*marked corrupt/],
  ] as const) {
    it(`that is marked ${name} is mounted, with a warning on stderr`, async () => {
      const { raw, image } = await makeImage(box());
      patch(image, HEADER.incompatibleFeatures, bit);
      for (const more of [[], ['--foreground']]) {
        const mnt = box().folder();
        const running = box().startCli([image, mnt, ...more]);
        if (more.length === 0) expect((await running.ended()).status).to.equal(0);
        else while (!readdirSync(mnt).includes('disk.raw')) await box().run('true', []);
        expect(running.stderr).to.match(words);
        expect(running.stderr.trim().split('\n')).to.have.lengthOf(1);
        await expectSame(box(), `${mnt}/disk.raw`, wholeOf(raw));
        await box().unmount(mnt);
      }
      // Nothing was written to it: the bit is still there.
      expect(peek(image, HEADER.incompatibleFeatures)).to.equal(bit);
    });
  }
});
