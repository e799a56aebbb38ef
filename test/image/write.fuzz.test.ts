import type { WriteOptions } from '#src/image/write-options.js';
import { AES_OPTIONS, makeLuksImage } from '../helpers/encrypted.js';
import { SECRET } from '../helpers/image-words.js';
import { runModel } from '../helpers/model-run.js';
import { qemuImg, qemuIo, tryQemuImg } from '../helpers/qemu.js';
import { loadZstd } from '#src/image/qcow2/compression.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { useTempFolder } from '../helpers/temp.js';

await loadZstd();

interface Feature {
  readonly name: string;
  readonly options: string;
  readonly format?: 'qed' | 'qcow';
  readonly backing?: boolean;
  readonly compressed?: boolean;
  readonly compress?: boolean;
  readonly snapshots?: boolean;
  readonly direct?: boolean;
  readonly luks?: boolean;
  /** The name of a bitmap that it has. */
  readonly bitmap?: string;
  /** Its data file is the disk. */
  readonly raw?: boolean;
  readonly write?: Partial<WriteOptions>;
}

const SIZE = 3 << 20;

const FEATURES: readonly Feature[] = [
  { name: 'as QEMU makes it', options: 'compat=1.1' },
  { name: 'version 2', options: 'compat=0.10' },
  { name: 'version 2 over a backing file', options: 'compat=0.10', backing: true },
  { name: 'over a backing file', options: 'compat=1.1', backing: true },
  { name: 'lazy refcounts', options: 'compat=1.1,lazy_refcounts=on' },
  { name: 'clusters of 512', options: 'cluster_size=512' },
  { name: 'clusters of 512, 64-bit counts', options: 'cluster_size=512,refcount_bits=64' },
  { name: 'clusters of 4K over a backing file', options: 'cluster_size=4096', backing: true },
  { name: 'clusters of 2M', options: 'cluster_size=2M' },
  { name: 'counts of 1 bit', options: 'refcount_bits=1,cluster_size=4096', snapshots: false },
  { name: 'counts of 4 bits', options: 'refcount_bits=4,cluster_size=4096' },
  { name: 'counts of 8 bits', options: 'refcount_bits=8,cluster_size=1024' },
  { name: 'counts of 32 bits', options: 'refcount_bits=32,cluster_size=1024' },
  { name: 'past the page cache', options: 'cluster_size=1024', backing: true, direct: true },
  {
    name: 'zeroes detected, nothing punched',
    options: 'cluster_size=4096',
    backing: true,
    write: { detectZeroes: 'unmap', discard: 'ignore' },
  },
  {
    name: 'zeroes detected and kept, each write flushed',
    options: 'compat=1.1',
    write: { detectZeroes: 'on', cache: 'writethrough' },
  },
  { name: 'subclusters', options: 'extended_l2=on' },
  { name: 'subclusters of 512', options: 'extended_l2=on,cluster_size=16k', backing: true },
  { name: 'subclusters, lazy', options: 'extended_l2=on,lazy_refcounts=on', backing: true },
  { name: 'compressed clusters', options: 'cluster_size=4096', compressed: true },
  { name: 'a data file', options: 'data_file=@', snapshots: false },
  {
    name: 'a data file over a backing file',
    options: 'data_file=@,cluster_size=4096',
    backing: true,
    snapshots: false,
  },
  {
    name: 'a data file, subclusters',
    options: 'data_file=@,extended_l2=on',
    backing: true,
    snapshots: false,
  },
  {
    name: 'a data file, past the page cache, nothing punched',
    options: 'data_file=@,cluster_size=1024,lazy_refcounts=on',
    snapshots: false,
    direct: true,
    write: { detectZeroes: 'unmap', discard: 'ignore' },
  },
  {
    name: 'a raw data file',
    options: 'data_file=@,data_file_raw=on,cluster_size=4096',
    snapshots: false,
    raw: true,
  },
  {
    name: 'a raw data file, subclusters, nothing punched',
    options: 'data_file=@,data_file_raw=on,extended_l2=on',
    snapshots: false,
    raw: true,
    write: { detectZeroes: 'on', discard: 'ignore' },
  },
  {
    name: 'encrypted by LUKS, subclusters, past the page cache',
    options: 'extended_l2=on',
    luks: true,
    direct: true,
  },
  { name: 'encrypted by AES, version 2', options: `compat=0.10,${AES_OPTIONS}`, backing: true },
  {
    name: 'encrypted by AES, a data file',
    options: `data_file=@,cluster_size=4096,${AES_OPTIONS}`,
    snapshots: false,
  },
  {
    name: 'encrypted by LUKS, CBC, over a backing file',
    options:
      'compat=0.10,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256',
    backing: true,
    luks: true,
  },
  {
    name: 'encrypted by LUKS, a data file, clusters of 512',
    options: 'data_file=@,cluster_size=512,encrypt.cipher-alg=aes-128',
    luks: true,
    snapshots: false,
    write: { detectZeroes: 'unmap' },
  },
  {
    name: 'QED over a backing file',
    format: 'qed',
    options: 'cluster_size=4k,table_size=2',
    backing: true,
    snapshots: false,
  },
  {
    name: 'QED, past the page cache, zeroes detected',
    format: 'qed',
    options: '',
    direct: true,
    snapshots: false,
    write: { detectZeroes: 'unmap' },
  },
  {
    name: 'qcow, compressing',
    format: 'qcow',
    options: '',
    compressed: true,
    compress: true,
    snapshots: false,
  },
  {
    name: 'qcow over a backing file, each write flushed',
    format: 'qcow',
    options: '',
    backing: true,
    compress: true,
    snapshots: false,
    write: { detectZeroes: 'on', cache: 'writethrough' },
  },
  {
    name: 'qcow, encrypted by AES',
    format: 'qcow',
    options: AES_OPTIONS,
    backing: true,
    snapshots: false,
    direct: true,
  },
  { name: 'compressing', options: 'cluster_size=4096', compressed: true, compress: true },
  { name: 'compressing, version 2', options: 'compat=0.10', backing: true, compress: true },
  {
    name: 'compressing, counts of 2 bits',
    options: 'cluster_size=1024,refcount_bits=2',
    compress: true,
    snapshots: false,
  },
  {
    name: 'compressing by zstd, subclusters, lazy',
    options: 'compression_type=zstd,extended_l2=on,lazy_refcounts=on',
    backing: true,
    compress: true,
  },
  { name: 'compressing, clusters of 512', options: 'cluster_size=512', compress: true },
  { name: 'compressed, subclusters', options: 'extended_l2=on', compressed: true },
  {
    name: 'a bitmap',
    options: 'cluster_size=4096',
    backing: true,
    compress: true,
    snapshots: false,
    bitmap: 'on',
  },
  {
    name: 'a bitmap, clusters of 512, lazy',
    options: 'cluster_size=512,lazy_refcounts=on',
    snapshots: false,
    bitmap: 'on',
    write: { detectZeroes: 'unmap' },
  },
];

/** More for long runs: `QCOW2FS_FUZZ_STEPS=100000`. */
const STEPS = Number(process.env.QCOW2FS_FUZZ_STEPS ?? 100);

describe('writing to an image', () => {
  printSeed();
  const folder = useTempFolder();

  for (const feature of FEATURES) {
    it(`is what a shadow copy and QEMU say: ${feature.name}`, async function () {
      this.timeout(600_000);
      const random = new Random(SEED);
      const path = folder.at('disk.qcow2');
      const start = await makeImage(path, feature, random);
      if (feature.bitmap !== undefined) {
        qemuImg('bitmap', '--add', '-g', '512', path, feature.bitmap);
      }
      runModel({
        path,
        random,
        steps: STEPS,
        start,
        format: feature.format ?? 'qcow2',
        maxSize: SIZE * 1.5,
        snapshots: feature.snapshots ?? true,
        direct: feature.direct ?? false,
        write: feature.write ?? {},
        compress: feature.compress ?? false,
        bitmap: feature.bitmap,
        ...(feature.raw === true ? { same: folder.at('data') } : {}),
      });
    });
  }

  async function makeImage(path: string, feature: Feature, random: Random): Promise<Buffer> {
    const start = Buffer.alloc(SIZE);
    const below: string[] = [];
    const { format = 'qcow2' } = feature;
    const options = feature.options.replace('@', folder.at('data'));
    const how = options === '' ? [] : ['-o', options];
    if (feature.backing === true) {
      // Shorter than the disk, and of no whole number of clusters.
      const bytes = Buffer.alloc(SIZE - 100 * 512);
      for (let at = 0; at < bytes.length; at += 512)
        bytes.fill(1 + random.below(255), at, at + 512);
      const base = folder.write('base.raw', bytes);
      bytes.copy(start);
      below.push('-b', base, '-F', 'raw');
    }
    if (feature.compressed === true) {
      for (let at = 0; at < SIZE; at += 512) start.fill(random.below(50), at, at + 512);
      const raw = folder.write('source.raw', start);
      // QEMU 7.2 fails where it has compressed to qcow; the image is whole.
      tryQemuImg('convert', '-c', '-f', 'raw', '-O', format, ...how, raw, path);
    } else {
      if (feature.luks === true) {
        const named = feature.backing === true ? `,backing_file=${below[1]},backing_fmt=raw` : '';
        await makeLuksImage(path, SIZE, options + named);
      } else qemuImg('create', ...SECRET, '-f', format, ...how, ...below, path, String(SIZE));
      qemuIo(path, 'write -P 7 1M 100k');
      start.fill(7, 1 << 20, (1 << 20) + 100 * 1024);
    }
    return start;
  }
});
