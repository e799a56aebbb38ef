/** Every byte of every raw file in the mount is QEMU's, over the features of images. */
import { readdirSync, statSync } from 'node:fs';
import { expect } from 'chai';
import { noMounts, type Sandbox, skipSuite, useSandbox } from '../helpers/mount.js';
import {
  createImage,
  expectSame,
  expectSameDirect,
  KIB,
  makeRawDisk,
  MIB,
  noise,
  oracle,
  partitionsOf,
  qemuIo,
  snapshotOracle,
  type TableKind,
  type Window,
  wholeOf,
  writeSparse,
} from '../helpers/mount-images.js';
import { describeTransports } from '../helpers/transports.js';

interface Recipe {
  readonly name: string;
  /** What `-o` takes. */
  readonly options: string;
  readonly table?: TableKind;
  readonly compressed?: boolean;
  /** Snapshots taken on the way: `sizes` with others than the disk's. */
  readonly snapshots?: 'same' | 'sizes';
  /** Cluster size, where compressed clusters are written later as well. */
  readonly recompress?: number;
  readonly size?: number;
}

const RECIPES: readonly Recipe[] = [
  { name: 'version 2', options: 'compat=0.10', table: 'mbr', snapshots: 'same' },
  { name: 'version 2, 512-byte clusters', options: 'compat=0.10,cluster_size=512', table: 'gpt' },
  {
    name: 'version 2, compressed, 4K',
    options: 'compat=0.10,cluster_size=4k',
    compressed: true,
    recompress: 4 * KIB,
    snapshots: 'same',
  },
  { name: 'version 3', options: '', table: 'gpt', snapshots: 'sizes' },
  { name: '512-byte clusters', options: 'cluster_size=512', table: 'mbr', snapshots: 'sizes' },
  {
    name: '512-byte clusters, zlib',
    options: 'cluster_size=512',
    compressed: true,
    recompress: 512,
    size: 3 * MIB,
  },
  { name: '8K, refcounts of 1 bit', options: 'cluster_size=8k,refcount_bits=1', table: 'mbr' },
  { name: '2M', options: 'cluster_size=2M', table: 'mbr', snapshots: 'sizes' },
  {
    name: '2M, zlib',
    options: 'cluster_size=2M',
    compressed: true,
    recompress: 2 * MIB,
    snapshots: 'same',
    table: 'gpt',
  },
  {
    name: '64K, zlib',
    options: 'lazy_refcounts=on',
    compressed: true,
    recompress: 64 * KIB,
    snapshots: 'sizes',
    table: 'mbr',
  },
  {
    name: '64K, zstd',
    options: 'compression_type=zstd',
    compressed: true,
    recompress: 64 * KIB,
    snapshots: 'sizes',
    table: 'mbr',
  },
  {
    name: '4K, zstd, refcounts of 64 bits',
    options: 'cluster_size=4k,compression_type=zstd,refcount_bits=64',
    compressed: true,
    recompress: 4 * KIB,
    table: 'gpt',
  },
  {
    name: '2M, zstd',
    options: 'cluster_size=2M,compression_type=zstd',
    compressed: true,
    recompress: 2 * MIB,
  },
  {
    name: 'extended L2, 16K',
    options: 'extended_l2=on,cluster_size=16k',
    table: 'mbr',
    snapshots: 'sizes',
  },
  {
    name: 'extended L2, 128K, zstd',
    options: 'extended_l2=on,cluster_size=128k,compression_type=zstd',
    compressed: true,
    recompress: 128 * KIB,
    snapshots: 'same',
    table: 'gpt',
  },
  { name: 'extended L2, 2M', options: 'extended_l2=on,cluster_size=2M', snapshots: 'sizes' },
  { name: 'preallocated metadata', options: 'preallocation=metadata', table: 'mbr' },
  { name: 'preallocated in full', options: 'preallocation=full,cluster_size=32k', table: 'gpt' },
  { name: 'a data file', options: 'data_file=@.data', table: 'mbr' },
  { name: 'a data file, 4K', options: 'data_file=@.data,cluster_size=4k', table: 'gpt' },
  { name: 'a raw data file', options: 'data_file=@.data,data_file_raw=on', table: 'mbr' },
  {
    name: 'a data file, extended L2',
    options: 'data_file=@.data,extended_l2=on,cluster_size=64k',
    table: 'gpt',
  },
];

/** Writes of all kinds, at places that no cluster size divides. */
function writes(pattern: string, at: number): string[] {
  return [
    `write -s ${pattern} ${at + 5} 3000`,
    `write -s ${pattern} ${at + 100 * KIB + 511} 130000`,
    `write -z ${at + 300 * KIB} ${70 * KIB}`,
    `write -s ${pattern} ${at + 333 * KIB} 512`,
    `write -z -u ${at + 450 * KIB + 512} ${200 * KIB}`,
    `discard ${at + 700 * KIB} ${300 * KIB}`,
    `write -s ${pattern} ${at + 800 * KIB} 1`,
  ];
}

async function build(sandbox: Sandbox, recipe: Recipe): Promise<string> {
  const { options, table = 'none', compressed = false, snapshots, recompress } = recipe;
  const disk = await makeRawDisk(sandbox, 'disk.raw', { size: recipe.size ?? 10 * MIB, table });
  const image = sandbox.path('disk.qcow2');
  const pattern = sandbox.path('pattern');
  writeSparse(pattern, 65_521, [{ at: 0, bytes: noise(77, 65_521) }]);
  const filled = options.replace('@', image);
  const flags = [...(compressed ? ['-c'] : []), ...(filled === '' ? [] : ['-o', filled])];
  await sandbox.must('qemu-img', ['convert', '-t', 'unsafe', '-O', 'qcow2', ...flags, disk, image]);
  const snap = (name: string) => sandbox.must('qemu-img', ['snapshot', '-c', name, image]);
  if (snapshots !== undefined) await snap('first');
  await qemuIo(sandbox, image, writes(pattern, MIB));
  if (recompress !== undefined) {
    const start = Math.ceil((0.3 * (recipe.size ?? 10 * MIB)) / recompress) * recompress;
    // QEMU writes compressed clusters only where there are none.
    const place = `${start} ${recompress}`;
    await qemuIo(sandbox, image, [`discard ${place}`, `write -c -P 65 ${place}`]);
  }
  if (snapshots === 'sizes') {
    await sandbox.must('qemu-img', ['resize', '-q', image, '11269k']);
    await qemuIo(sandbox, image, [`write -s ${pattern} 11200k 60000`]);
  }
  if (snapshots !== undefined) {
    await snap('second');
    await qemuIo(sandbox, image, writes(pattern, MIB + 400 * KIB));
    // Back to the first, so that the second is of another size, and a bit of something new.
    if (snapshots === 'sizes') await sandbox.must('qemu-img', ['snapshot', '-a', 'first', image]);
    await qemuIo(sandbox, image, [`write -s ${pattern} 2345k 4567`]);
  }
  return image;
}

/** Compares a disk and its partitions: all of them at the same time. */
async function expectDisk(
  sandbox: Sandbox,
  raw: string,
  partitions: string,
  truth: string,
): Promise<void> {
  const windows: [string, Window][] = [[raw, wholeOf(truth)]];
  const parts = await partitionsOf(sandbox, truth);
  for (const [number, window] of parts) windows.push([`${partitions}/${number}.raw`, window]);
  if (parts.size > 0) expect(readdirSync(partitions)).to.have.lengthOf(parts.size);
  await Promise.all(
    windows.flatMap(([path, window], index) => [
      expectSame(sandbox, path, window),
      expectSameDirect(sandbox, path, window, index === 0 ? MIB : 65_537),
    ]),
  );
}

describe('the contents of a mount', () => {
  skipSuite(noMounts);
  const box = useSandbox();

  for (const recipe of RECIPES) {
    it(`equal what QEMU reads: ${recipe.name}`, async () => {
      const sandbox = box();
      const image = await build(sandbox, recipe);
      const mnt = await sandbox.mount(image);
      const truth = await oracle(sandbox, image);
      await expectDisk(sandbox, `${mnt}/disk.raw`, `${mnt}/disk.partitions`, truth);
      for (const name of recipe.snapshots === undefined ? [] : ['first', 'second']) {
        const then = await snapshotOracle(sandbox, image, name);
        const base = `${mnt}/disk.snapshots/${name}`;
        await expectDisk(sandbox, `${base}.raw`, `${base}.partitions`, then);
      }
    });
  }
});

interface Link {
  readonly format: 'raw' | 'qcow2';
  readonly size: number;
  readonly options?: string;
}

/** Chains, the deepest layer first. */
const CHAINS: Readonly<Record<string, readonly Link[]>> = {
  'qcow2 over a smaller raw': [
    { format: 'raw', size: 3 * MIB + 512 },
    { format: 'qcow2', size: 8 * MIB },
  ],
  'qcow2 over a larger raw': [
    { format: 'raw', size: 9 * MIB },
    { format: 'qcow2', size: 4 * MIB + 1024 },
  ],
  'qcow2 over a raw file of odd size': [
    { format: 'raw', size: 3 * MIB + 77 },
    { format: 'qcow2', size: 5 * MIB, options: 'cluster_size=4k' },
  ],
  'four layers of other cluster sizes': [
    { format: 'qcow2', size: 5 * MIB, options: 'cluster_size=512' },
    { format: 'qcow2', size: 7 * MIB, options: 'cluster_size=2M' },
    { format: 'qcow2', size: 4 * MIB, options: 'compat=0.10,cluster_size=4k' },
    { format: 'qcow2', size: 8 * MIB, options: 'extended_l2=on,cluster_size=64k' },
  ],
  'three layers, subclusters below': [
    { format: 'raw', size: 6 * MIB },
    { format: 'qcow2', size: 6 * MIB, options: 'extended_l2=on,cluster_size=16k' },
    { format: 'qcow2', size: 6 * MIB, options: 'cluster_size=1M' },
  ],
  'a data file over qcow2': [
    { format: 'qcow2', size: 3 * MIB },
    { format: 'qcow2', size: 5 * MIB, options: 'data_file=@.data' },
  ],
};

async function buildChain(sandbox: Sandbox, links: readonly Link[]): Promise<string[]> {
  const pattern = sandbox.path('pattern');
  writeSparse(pattern, 65_521, [{ at: 0, bytes: noise(78, 65_521) }]);
  const layers: string[] = [];
  for (const [index, { format, size, options = '' }] of links.entries()) {
    const name = `layer${index}.${format}`;
    if (format === 'raw') {
      layers.push(await makeRawDisk(sandbox, name, { size, table: 'small', seed: index }));
      continue;
    }
    const below = links[index - 1];
    const backing = below && { file: layers.at(-1)!, format: below.format };
    const filled = options.replace('@', sandbox.path(name));
    const image = await createImage(sandbox, name, size, filled, backing);
    const commands = writes(pattern, (index + 1) * 600 * KIB);
    await qemuIo(sandbox, image, [...commands, `write -s ${pattern} ${size - 7000} 7000`]);
    layers.push(image);
  }
  return layers;
}

describe('the contents of a mounted chain', () => {
  skipSuite(noMounts);
  const box = useSandbox();

  for (const [name, links] of Object.entries(CHAINS)) {
    it(`equal what QEMU reads, from every layer on: ${name}`, async () => {
      const sandbox = box();
      const layers = await buildChain(sandbox, links);
      for (const layer of layers) {
        const mnt = await sandbox.mount(layer);
        const truth = await oracle(sandbox, layer);
        await expectDisk(sandbox, `${mnt}/disk.raw`, `${mnt}/disk.partitions`, truth);
        await sandbox.unmount(mnt);
      }
    });
  }
});

describeTransports('reading a mount', ({ transport }) => {
  const box = useSandbox('suite', transport);
  let file: string;
  let truth: Window;

  before(async () => {
    const recipe = { name: '', options: '', compressed: true, snapshots: 'same' } as const;
    const image = await build(box(), recipe);
    truth = wholeOf(await oracle(box(), image));
    file = `${await box().mount(image)}/disk.raw`;
  });

  for (const blockSize of [512, 4096, 4099, 65_536, 1_000_003, 4 * MIB]) {
    it(`with O_DIRECT gives the same by ${blockSize} bytes`, async () => {
      // A byte at a time takes long: only some of it.
      const size = blockSize === 512 ? 2 * MIB : truth.size;
      const script = 'dd if="$0" iflag=direct bs="$1" count="$2" status=none | cmp -n "$3" - "$4"';
      const count = Math.ceil(size / blockSize);
      const words = [file, blockSize, count, size, truth.file].map(String);
      expect(await box().script(script, words)).to.deep.equal({
        status: 0,
        stdout: '',
        stderr: '',
      });
    });
  }

  it('gives the same through the page cache, by odd sizes and from odd offsets', async () => {
    const script =
      'dd if="$0" bs="$1" skip="$2" iflag=skip_bytes status=none | cmp -i "0:$2" - "$3"';
    for (const [size, skip] of [
      [1000, 9 * MIB + 3],
      [77_777, 4095],
      [MIB, 1],
    ]) {
      const words = [file, String(size), String(skip), truth.file];
      expect(await box().script(script, words)).to.include({ status: 0, stderr: '' });
    }
  });

  it('past the end gives nothing, and a short read at the end', async () => {
    const script = 'dd if="$0" iflag="$1" bs=4096 skip="$2" count=2 status=none | wc -c';
    const end = truth.size;
    for (const flags of ['skip_bytes', 'skip_bytes,direct']) {
      const count = async (skip: number) =>
        Number((await box().script(script, [file, flags, String(skip)])).stdout);
      expect(await count(end)).to.equal(0);
      expect(await count(end - 10)).to.equal(10);
      expect(await count(end - 4097)).to.equal(4097);
    }
  });

  it('gives the same through a memory map', async () => {
    const size = statSync(file).size;
    for (const range of [`${3 * MIB} 300k`, '0 70001', `${size - 50_000} 50000`]) {
      const map = ['-r', '-c', `mmap -r 0 ${size}`, '-c', `mread -r -v ${range}`];
      const shown = await box().must('xfs_io', [...map, file]);
      expect(shown.length).to.be.above(50_000);
      expect(shown).to.equal(await box().must('xfs_io', [...map, truth.file]));
    }
  });

  it('gives the same to many processes at once', async () => {
    const readers = [1, 2, 3, 4].flatMap((index) => [
      expectSame(box(), file, truth),
      expectSameDirect(box(), file, truth, index * 12_345),
    ]);
    await Promise.all(readers);
  });
});
