import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { ERRNO, errnoOf } from '#src/errors.js';
import type { Qcow2Description } from '#src/image/description.js';
import { compressCluster, loadZstd } from '#src/image/qcow2/compression.js';
import { COMPRESSION_TYPE } from '#src/image/qcow2/layout.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { expectImageError } from '../../helpers/errors.js';
import { qemuImg, qemuIo, qemuRead } from '../../helpers/qemu.js';
import { pattern, printSeed, Random, SEED } from '../../helpers/random.js';
import { readDisk, readImage } from '../../helpers/read.js';
import { useTempFolder } from '../../helpers/temp.js';
import { type WritableImage, withWritable } from '../../helpers/writable-image.js';

await loadZstd();

const CLUSTER = 65536;
const MIB = 1 << 20;

/** Bytes that compress as programs do: words again and again, and some that do not. */
function likeFiles(random: Random, length: number): Buffer {
  const words = Array.from({ length: 300 }, () => random.bytes(3 + random.below(9)));
  const parts: Buffer[] = [];
  for (let size = 0; size < length; size += parts.at(-1)!.length) {
    parts.push(random.chance(0.02) ? random.bytes(random.below(600)) : random.pick(words));
  }
  return Buffer.concat(parts).subarray(0, length);
}

/** Writes all of `bytes` as `convert -c` would: zeroes not at all, what does not compress as data. */
function writeAll({ writer, image }: WritableImage, bytes: Buffer): void {
  const { header } = image.description.layers[0] as Qcow2Description;
  const { clusterSize } = header.geometry;
  for (let offset = 0; offset < bytes.length; offset += clusterSize) {
    const part = bytes.subarray(offset, offset + clusterSize);
    if (part.every((byte) => byte === 0)) continue;
    const packed = compressCluster(header.compressionType, part, clusterSize);
    if (packed !== null) writer.writeCompressed(offset, packed, packed.length);
    else {
      const source = new IoBuffer(part.length);
      part.copy(source.bytes);
      writer.write(offset, part.length, source, 0);
    }
  }
  writer.flushAll();
}

describe('compressCluster()', () => {
  printSeed();

  for (const [name, type] of Object.entries(COMPRESSION_TYPE)) {
    it(`makes clusters smaller, or nothing, by ${name}`, () => {
      const random = new Random(SEED);
      for (const size of [512, 4096, CLUSTER, 2 * MIB]) {
        expect(compressCluster(type, pattern(1, size))!.length).to.be.below(size / 2);
        expect(compressCluster(type, random.bytes(size))).to.equal(null);
      }
      const part = compressCluster(type, pattern(1, 1000), 4096)!;
      const whole = compressCluster(type, Buffer.concat([pattern(1, 1000)], 4096))!;
      expect(Buffer.compare(part, whole)).to.equal(0);
    });
  }
});

describe('writeCompressed()', () => {
  printSeed();
  const folder = useTempFolder();

  for (const options of [
    'compat=1.1',
    'compat=0.10',
    'compression_type=zstd',
    'extended_l2=on,compression_type=zstd,lazy_refcounts=on',
    'cluster_size=512',
    'cluster_size=4k,refcount_bits=1',
    'cluster_size=4k,refcount_bits=2',
    'cluster_size=2M',
  ]) {
    it(`makes images as QEMU does, and as dense: ${options}`, () => {
      const random = new Random(SEED);
      const bytes = likeFiles(random, 5 * MIB + 512 * 77);
      random.bytes(200_000).copy(bytes, MIB);
      bytes.fill(0, 2 * MIB, 3 * MIB);
      const raw = folder.write('disk.raw', bytes);
      const theirs = folder.at('theirs.qcow2');
      qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', options, raw, theirs);
      const ours = folder.at('ours.qcow2');
      qemuImg('create', '-f', 'qcow2', '-o', options, ours, String(bytes.length));
      withWritable(ours, (opened) => writeAll(opened, bytes));
      qemuImg('check', ours);
      expect(qemuRead(ours).equals(bytes)).to.equal(true);
      expect(readImage(ours).equals(bytes)).to.equal(true);
      expect(statSync(ours).size).to.be.at.most(statSync(theirs).size * 1.01);
    });
  }

  it('refuses what QEMU refuses, and takes what it takes', () => {
    const path = folder.at('disk.qcow2');
    qemuImg('create', '-f', 'qcow2', path, '1M');
    qemuIo(path, 'write -P 1 0 64k', 'write -c -P 2 64k 64k', 'write -z 128k 64k');
    qemuIo(path, 'write -P 3 192k 64k', 'write -z 192k 64k');
    const packed = compressCluster(0, Buffer.alloc(CLUSTER, 9))!;
    withWritable(path, ({ writer }) => {
      const put = (n: number) => () => writer.writeCompressed(n * CLUSTER, packed, packed.length);
      for (const taken of [0, 1, 3]) expectImageError('EIO', /replaces nothing/, put(taken));
      for (const empty of [2, 4, 15]) put(empty)();
      expectImageError('EINVAL', /cluster at 4096/, () => writer.writeCompressed(4096, packed, 9));
      expectImageError('EINVAL', /not on the disk/, put(16));
      for (const length of [0, CLUSTER, packed.length + 1]) {
        expectImageError('EINVAL', /as the cluster/, () =>
          writer.writeCompressed(5 * CLUSTER, packed, length),
        );
      }
      writer.flushAll();
    });
    qemuImg('check', path);
    const reads = [1, 2, 9, 0, 9].map((fill, n) => `read -P ${fill} ${n * 64}k 64k`);
    qemuIo(path, ...reads, 'read -P 9 960k 64k');
  });

  it('is not mistaken for what other compressed data was at that place', () => {
    const path = folder.at('disk.qcow2');
    qemuImg('create', '-f', 'qcow2', path, '1M');
    const packed = [1, 2].map((fill) => compressCluster(0, Buffer.alloc(CLUSTER, fill))!);
    withWritable(path, ({ writer, attach }) => {
      const other = attach(2);
      const read = () => {
        other.enter();
        try {
          return readDisk(other.disk, 0, CLUSTER);
        } finally {
          other.leave();
        }
      };
      writer.writeCompressed(0, packed[0]!, packed[0]!.length);
      expect(read().equals(Buffer.alloc(CLUSTER, 1))).to.equal(true);
      writer.discard(0, CLUSTER);
      writer.flushAll();
      const before = statSync(path).size;
      writer.writeCompressed(0, packed[1]!, packed[1]!.length);
      writer.flushAll();
      expect(statSync(path).size).to.equal(before);
      expect(read().equals(Buffer.alloc(CLUSTER, 2))).to.equal(true);
    });
    qemuImg('check', path);
  });

  it('does not go on in a host cluster that became free', () => {
    const path = folder.at('disk.qcow2');
    qemuImg('create', '-f', 'qcow2', path, '1M');
    const packed = compressCluster(0, Buffer.alloc(CLUSTER, 1))!;
    const source = new IoBuffer(CLUSTER);
    source.bytes.fill(7);
    withWritable(path, ({ writer }) => {
      writer.writeCompressed(0, packed, packed.length);
      writer.discard(0, CLUSTER);
      writer.flushAll();
      writer.write(0, CLUSTER, source, 0);
      writer.writeCompressed(CLUSTER, packed, packed.length);
      writer.flushAll();
    });
    qemuImg('check', path);
    qemuIo(path, 'read -P 7 0 64k', 'read -P 1 64k 64k');
  });

  it('leaves no trace where the host fails', () => {
    const path = folder.at('disk.qcow2');
    qemuImg('create', '-f', 'qcow2', '-o', 'cluster_size=4k', path, '4M');
    const random = new Random(SEED);
    const held = Buffer.alloc(4 * MIB);
    withWritable(path, ({ writer, storage }) => {
      for (let offset = 0; offset < held.length; offset += 4096) {
        const bytes = Buffer.concat([random.bytes(random.below(3000))], 4096);
        const packed = compressCluster(0, bytes)!;
        storage.failAfter(random.below(6), random.pick(['EIO', 'ENOSPC']), random.chance(0.2));
        try {
          writer.writeCompressed(offset, packed, packed.length);
          bytes.copy(held, offset);
        } catch (error) {
          expect(errnoOf(error)).to.be.oneOf([ERRNO.EIO, ERRNO.ENOSPC]);
        }
        storage.heal();
        if (random.chance(0.1)) writer.flush();
      }
      writer.flushAll();
    });
    qemuImg('check', path);
    expect(qemuRead(path).equals(held)).to.equal(true);
  });

  it('goes on in the middle of what is there, byte by byte', () => {
    const path = folder.at('disk.qcow2');
    qemuImg('create', '-f', 'qcow2', path, '1M');
    withWritable(path, (opened) => writeAll(opened, pattern(3, MIB / 2)));
    const before = readFileSync(path);
    writeFileSync(path, before);
    withWritable(path, ({ writer }) => {
      for (let n = 8; n < 16; n++) {
        const packed = compressCluster(0, pattern(n, CLUSTER))!;
        writer.writeCompressed(n * CLUSTER, packed, packed.length);
      }
      writer.flushAll();
    });
    qemuImg('check', path);
    expect(
      readImage(path)
        .subarray(0, MIB / 2)
        .equals(pattern(3, MIB / 2)),
    ).to.equal(true);
    expect(
      readImage(path)
        .subarray(15 * CLUSTER)
        .equals(pattern(15, CLUSTER)),
    ).to.equal(true);
  });
});
