/** Images that QEMU wrote, with the product of their features, read as QEMU reads them. */
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { EXTENT, Extent } from '#src/image/extent.js';
import { qemuImg, qemuIo, qemuRead } from '../helpers/qemu.js';
import { pattern, printSeed, Random, SEED } from '../helpers/random.js';
import { dataRuns, readDisk, readImage, withImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

const MIB = 1 << 20;

/** Writes, zeroes and discards at random places, some of them whole clusters. */
function randomWrites(random: Random, size: number, clusterSize: number, count: number): string[] {
  return Array.from({ length: count }, () => {
    const unit = random.chance(0.5) ? 512 : clusterSize;
    const offset = random.below(Math.max(1, Math.floor(size / unit))) * unit;
    const most = Math.min(size - offset, 3 * clusterSize);
    const length = Math.max(512, Math.floor((most * random.below(100)) / 100 / unit) * unit);
    const fill = `-P ${1 + random.below(255)}`;
    const flags = random.pick([fill, fill, fill, '-z', '-z -u']);
    return random.chance(0.1)
      ? `discard ${offset} ${length}`
      : `write ${flags} ${offset} ${Math.min(length, size - offset)}`;
  });
}

function expectSame(found: Buffer, expected: Buffer): void {
  expect(found.length).to.equal(expected.length);
  if (found.equals(expected)) return;
  const at = found.findIndex((byte, index) => byte !== expected[index]);
  expect.fail(`byte ${at} is ${found[at]}, not ${expected[at]}`);
}

function expectAsQemu(path: string): void {
  expectSame(readImage(path), qemuRead(path));
}

/** A raw file of `size` bytes: runs of text, of what does not compress, and of nothing. */
function rawContent(random: Random, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; ) {
    const length = Math.min(size - at, 512 * (1 + random.below(400)));
    const kind = random.below(3);
    if (kind === 0) pattern(at, length).copy(bytes, at);
    if (kind === 1) random.bytes(length).copy(bytes, at);
    at += length;
  }
  return bytes;
}

describe('images of QEMU', () => {
  const temp = useTempFolder();
  const random = new Random(SEED);
  printSeed();

  const layouts: [options: string, size: number][] = [
    ['compat=0.10', 8 * MIB],
    ['compat=0.10,cluster_size=512', MIB],
    ['cluster_size=512,refcount_bits=1', MIB],
    ['cluster_size=1k,refcount_bits=2', 2 * MIB],
    ['cluster_size=4k,refcount_bits=4', 4 * MIB],
    ['cluster_size=16k,refcount_bits=8', 20 * MIB],
    ['cluster_size=64k,refcount_bits=64', 80 * MIB],
    ['cluster_size=2M,refcount_bits=32', 20 * MIB],
    ['cluster_size=64k,lazy_refcounts=on', 8 * MIB],
    ['cluster_size=16k,extended_l2=on', 12 * MIB],
    ['cluster_size=128k,extended_l2=on', 16 * MIB],
    ['cluster_size=2M,extended_l2=on', 20 * MIB],
    ['cluster_size=64k,preallocation=metadata', 4 * MIB],
    ['cluster_size=64k,extended_l2=on,preallocation=falloc', 4 * MIB],
  ];
  const clusterSizeOf = (options: string) => {
    const [, number, unit] = /cluster_size=(\d+)(k|M)?/.exec(options) ?? [null, '64', 'k'];
    return Number(number) * { '': 1, k: 1024, M: MIB }[unit ?? '']!;
  };
  for (const [options, size] of layouts) {
    it(`reads what was written, zeroed and discarded: ${options}`, () => {
      const path = temp.at('image.qcow2');
      qemuImg('create', '-q', '-f', 'qcow2', '-o', options, path, `${size}`);
      qemuIo(path, ...randomWrites(random, size, clusterSizeOf(options), 40));
      expectAsQemu(path);
    });
  }

  for (const compression of ['zlib', 'zstd']) {
    for (const clusterSize of ['512', '4k', '64k', '2M']) {
      for (const extended of clusterSize === '64k' ? ['off', 'on'] : ['off']) {
        const options = `compression_type=${compression},cluster_size=${clusterSize}`;
        it(`reads compressed clusters: ${options},extended_l2=${extended}`, () => {
          const content = rawContent(random, clusterSize === '512' ? MIB : 6 * MIB);
          const raw = temp.write('raw', content);
          const path = temp.at('image.qcow2');
          const all = `${options},extended_l2=${extended}`;
          qemuImg('convert', '-q', '-c', '-f', 'raw', '-O', 'qcow2', '-o', all, raw, path);
          expectSame(readImage(path), content);
          qemuIo(path, ...randomWrites(random, content.length, clusterSizeOf(options), 10));
          expectAsQemu(path);
        });
      }
    }
  }

  it('reads compressed clusters across the border of host clusters, up to the end of file', () => {
    // Compresses to about a half.
    const content = random.bytes(MIB).map((byte) => byte & 15);
    const raw = temp.write('raw', content);
    const path = temp.at('image.qcow2');
    qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', 'cluster_size=4k', raw, path);
    let crossing = 0;
    let last = 0;
    withImage(path, ({ image: { disk } }) => {
      const extent = new Extent();
      for (let at = 0; at < disk.size; at += extent.length) {
        disk.mapping.map(at, disk.size - at, extent);
        if (extent.kind !== EXTENT.COMPRESSED) continue;
        const end = extent.hostOffset + extent.hostLength;
        if (Math.floor(extent.hostOffset / 4096) !== Math.floor((end - 1) / 4096)) crossing++;
        last = Math.max(last, end);
      }
    });
    expect(crossing).to.be.greaterThan(10);
    expectSame(readImage(path), readFileSync(raw));
    // The file may end with the data: its last sector need not be whole.
    const whole = statSync(path).size;
    if (last < whole) truncateSync(path, last);
    let end = Math.min(last, whole);
    while (end > last - 512 && readFileSync(path)[end - 1] === 0) end--;
    truncateSync(path, end);
    expectSame(readImage(path), readFileSync(raw));
  });

  for (const raw of ['off', 'on']) {
    it(`reads external data files, data_file_raw=${raw}`, () => {
      const path = temp.at('image.qcow2');
      const options = `data_file=${temp.at('data')},data_file_raw=${raw}`;
      qemuImg('create', '-q', '-f', 'qcow2', '-o', options, path, '4M');
      qemuIo(path, ...randomWrites(random, 4 * MIB, 65536, 30));
      expectAsQemu(path);
      if (raw === 'on') expectSame(readImage(path), readFileSync(temp.at('data')));
    });
  }

  it('reads chains of different cluster sizes, formats and sizes', () => {
    temp.write('0', rawContent(random, 2 * MIB + 512));
    const layers: [options: string, size: number][] = [
      ['cluster_size=64k', 3 * MIB],
      ['cluster_size=512', MIB],
      ['cluster_size=128k,extended_l2=on', 4 * MIB],
      ['cluster_size=4k,compression_type=zstd', 2 * MIB],
      ['cluster_size=2M', 5 * MIB],
    ];
    for (const [n, [options, size]] of layers.entries()) {
      const path = temp.at(`${n + 1}`);
      const backing = ['-b', temp.at(`${n}`), '-F', n === 0 ? 'raw' : 'qcow2'];
      qemuImg('create', '-q', '-f', 'qcow2', '-o', options, ...backing, path, `${size}`);
      qemuIo(path, ...randomWrites(random, size, clusterSizeOf(options), 8));
      expectAsQemu(path);
    }
  });

  it('reads a raw image of a partial sector', () => {
    const path = temp.write('raw', rawContent(random, 10_000));
    const found = readImage(path, { format: 'raw' });
    const expected = Buffer.alloc(10_240);
    readFileSync(path).copy(expected);
    expectSame(found, expected);
    const top = temp.at('top.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', '-b', path, '-F', 'raw', top, '64k');
    expectAsQemu(top);
  });

  for (const options of ['cluster_size=64k', 'cluster_size=512', 'extended_l2=on', 'compat=0.10']) {
    it(`reads snapshots, of other sizes than the disk too: ${options}`, () => {
      const base = temp.write('base', rawContent(random, MIB));
      const path = temp.at('image.qcow2');
      const backing = ['-b', base, '-F', 'raw'];
      qemuImg('create', '-q', '-f', 'qcow2', '-o', options, ...backing, path, '2M');
      // Version 2 images do not keep a snapshot's size: QEMU does not resize those with any.
      const sizes = options === 'compat=0.10' ? [2, 2, 2, 2] : [2, 3, 1, 4];
      const kept: Buffer[] = [];
      for (const [n, size] of sizes.entries()) {
        if (size !== sizes[n - 1]) qemuImg('resize', '-q', '--shrink', path, `${size}M`);
        qemuIo(path, ...randomWrites(random, size * MIB, 65536, 15));
        // What QEMU reads of the disk now is what the snapshot has to show for ever.
        kept.push(qemuRead(path));
        qemuImg('snapshot', '-c', `snapshot ${n}`, path);
      }
      qemuIo(path, ...randomWrites(random, 4 * MIB * (sizes[3]! / 4), 65536, 15));
      expectAsQemu(path);
      withImage(path, ({ image }) => {
        for (const [n, expected] of kept.entries()) {
          const disk = image.snapshotDisk(n + 1);
          expectSame(readDisk(disk), expected);
          // With -l, QEMU gives the snapshot the size of the disk.
          const converted = qemuRead(path, `snapshot.name=snapshot ${n}`);
          const both = Math.min(converted.length, expected.length);
          expectSame(converted.subarray(0, both), expected.subarray(0, both));
          for (const { end } of dataRuns(disk)) expect(end).to.be.at.most(disk.size);
        }
      });
    });
  }

  it('tells holes where qemu-img map finds zeroes', () => {
    const path = temp.at('image.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', path, '40M');
    qemuIo(path, 'write -P 1 0 64k', 'write -P 2 33M 128k', 'write -z 34M 1M', 'write -P 3 39M 1M');
    const map = JSON.parse(qemuImg('map', '--output=json', path)) as {
      start: number;
      length: number;
      data: boolean;
    }[];
    const expected = map
      .filter(({ data }) => data)
      .map(({ start, length }) => ({ start, end: start + length }));
    withImage(path, ({ image }) => expect(dataRuns(image.disk)).to.deep.equal(expected));
  });

  it('finds the holes of a raw file', () => {
    const path = temp.at('raw');
    writeFileSync(path, '');
    truncateSync(path, 4 * MIB);
    qemuIo(path, 'write -P 1 1M 64k');
    withImage(path, ({ image }) => {
      expect(dataRuns(image.disk)).to.deep.equal([{ start: MIB, end: MIB + 65536 }]);
    });
  });
});
