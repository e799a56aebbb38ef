import { statSync } from 'node:fs';
import { expect } from 'chai';
import type { VmStateSource } from '#src/image/writer.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { expectImageError } from '../../helpers/errors.js';
import { qemuImg, qemuIo } from '../../helpers/qemu.js';
import { pattern } from '../../helpers/random.js';
import { readDisk, withImage } from '../../helpers/read.js';
import { useTempFolder } from '../../helpers/temp.js';
import { withWritable } from '../../helpers/writable-image.js';

const MIB = 1 << 20;
const KIB = 1024;

const KINDS = [
  'compat=1.1',
  'compat=0.10',
  'cluster_size=512',
  'cluster_size=4k,refcount_bits=8',
  'extended_l2=on,lazy_refcounts=on',
  'cluster_size=2M',
];

function ioBuffer(bytes: Uint8Array): IoBuffer {
  const buffer = new IoBuffer(bytes.length);
  buffer.bytes.set(bytes);
  return buffer;
}

function sourceOf(bytes: Buffer): VmStateSource {
  return {
    size: bytes.length,
    read: (offset, length, target, at) => {
      bytes.copy(target.bytes, at, offset, offset + length);
    },
  };
}

describe('VM state', () => {
  const folder = useTempFolder();

  function create(options: string, size = '1M'): string {
    const path = folder.at('disk.qcow2');
    const base = folder.write('base.raw', Buffer.alloc(3 * MIB, 0x77));
    qemuImg('create', '-f', 'qcow2', '-o', options, '-b', base, '-F', 'raw', path, size);
    return path;
  }

  for (const options of KINDS) {
    it(`is read by QEMU as it was written, and the other way round: ${options}`, () => {
      const path = create(options);
      qemuIo(path, 'write -P 1 0 1M', 'write -b -P 5 64k 100k', 'write -b -P 6 3M 512');
      withWritable(path, ({ image, writer }) => {
        const found = readDisk(image.activeVmState(), 0, 4 * MIB);
        expect(found.subarray(0, 64 * KIB).equals(Buffer.alloc(64 * KIB))).to.equal(true);
        expect(found.subarray(64 * KIB, 164 * KIB).equals(Buffer.alloc(100 * KIB, 5))).to.equal(
          true,
        );
        expect(found[3 * MIB + 511]).to.equal(6);
        writer.writeVmState(100 * KIB, 512, ioBuffer(Buffer.alloc(512, 8)), 0);
        writer.writeVmState(10 * MIB, MIB, ioBuffer(Buffer.alloc(MIB, 9)), 0);
        writer.flushAll();
      });
      qemuImg('check', path);
      qemuIo(path, 'read -P 1 0 1M', 'read -b -P 5 64k 36k', 'read -b -P 8 100k 512');
      qemuIo(path, 'read -b -P 6 3M 512', 'read -b -P 9 10M 1M', 'read -b -P 0 9M 512');
    });

    it(`is saved with a snapshot, and its place given back: ${options}`, () => {
      const path = create(options);
      qemuIo(path, 'write -P 1 0 1M', 'write -b -P 5 64k 2M');
      const first = pattern(1, 3 * MIB + 77);
      const second = pattern(2, 1000);
      withWritable(path, ({ image, writer }) => {
        const date = { sec: 1_600_000_000, nsec: 123_456_789 };
        const options = { date, vmClock: 10n ** 17n, icount: 12_345n };
        writer.createSnapshot('one', { vmState: sourceOf(first), ...options });
        writer.createSnapshot('two', { vmState: sourceOf(second) });
        const [one, two] = image.snapshots();
        expect(readDisk(image.vmState(one!.view)).equals(first)).to.equal(true);
        expect(readDisk(image.vmState(two!.view)).equals(second)).to.equal(true);
        expect(one!.snapshot).to.include({ dateSec: date.sec, dateNsec: date.nsec });
        expect(one!.snapshot).to.include({ vmClock: 10n ** 17n, icount: 12_345n });
        expect(two!.snapshot).to.include({ vmClock: 0n, icount: 2n ** 64n - 1n });
        const left = readDisk(image.activeVmState(), 0, 4 * MIB);
        expect(left.every((byte) => byte === 0)).to.equal(true);
      });
      qemuImg('check', path);
      expect(qemuImg('snapshot', '-l', path)).to.match(/1 +one +3 MiB 2020-/);
      // The last sector of each, and of the first also one in the middle.
      const last = Buffer.concat([first.subarray(3 * MIB)], 512);
      const reads = [
        [first.subarray(MIB, MIB + 512), MIB],
        [last, 3 * MIB],
        [Buffer.concat([second.subarray(512)], 512), 512],
      ] as const;
      for (const [index, [bytes, at]] of reads.entries()) {
        qemuImg('snapshot', '-a', index < 2 ? 'one' : 'two', path);
        const hex = bytes.toString('hex', 0, 16).replace(/..(?=.)/g, '$& ');
        expect(qemuIo(path, 'read -P 1 0 1M', `read -b -v ${at} 512`)).to.include(hex);
      }
      qemuImg('check', path);
      withWritable(path, ({ image, writer }) => {
        writer.revertTo(image.snapshots()[0]!.view);
        expect(readDisk(image.activeVmState(), 0, first.length).equals(first)).to.equal(true);
        writer.deleteSnapshot(image.snapshots()[0]!.view);
        writer.flushAll();
      });
      qemuImg('check', path);
    });
  }

  it('never shows on the disk that grows over its place', () => {
    const path = create('cluster_size=4k');
    withWritable(path, ({ writer }) => {
      writer.writeVmState(0, 8 * MIB, ioBuffer(Buffer.alloc(8 * MIB, 9)), 0);
      writer.resize(6 * MIB);
      writer.flushAll();
    });
    qemuImg('check', path);
    qemuIo(path, 'read -P 0 1M 5M');
  });

  it('leaves nothing where a snapshot cannot be taken', () => {
    const path = create('cluster_size=4k,refcount_bits=1');
    qemuIo(path, 'write -P 1 0 64k');
    withWritable(path, ({ image, writer }) => {
      const vmState = sourceOf(pattern(1, MIB));
      expect(() => writer.createSnapshot('one', { vmState })).to.throw(/all the references/);
      expect(image.snapshots().length).to.equal(0);
      writer.flushAll();
    });
    qemuImg('check', path);
    qemuIo(path, 'read -P 1 0 64k');
    withImage(path, ({ image }) => {
      expect(readDisk(image.activeVmState(), 0, MIB)).to.deep.equal(Buffer.alloc(MIB));
    });
    expect(statSync(path).blocks * 512).to.be.below(MIB / 2);
  });

  it('ends where the tables do', () => {
    const path = create('cluster_size=512');
    withWritable(path, ({ image, writer }) => {
      const bytes = new IoBuffer(512);
      expectImageError('EFBIG', /cannot become that large/, () =>
        writer.writeVmState(2 ** 47, 512, bytes, 0),
      );
      const disk = image.activeVmState();
      expect(readDisk(disk, disk.size - 512)).to.deep.equal(Buffer.alloc(512));
    });
    qemuImg('check', path);
  });

  it("of a disk near 2^53 bytes ends there, and a snapshot of such a disk is in nobody's way", () => {
    const path = folder.at('huge.qcow2');
    const size = 2 ** 53 - 2 ** 40;
    qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=2M', path, String(size));
    withWritable(path, ({ image, writer }) => {
      writer.write(size - 512, 512, ioBuffer(Buffer.alloc(512, 3)), 0);
      writer.createSnapshot('s', { vmState: sourceOf(Buffer.alloc(512, 4)) });
      expectImageError('EFBIG', /2199023255552 bytes of VM state are too many/, () =>
        writer.writeVmState(2 ** 41 - 512, 512, new IoBuffer(512), 0),
      );
      expect(image.activeVmState().size).to.equal(2 ** 40);
    });
    withWritable(path, ({ image, writer }) => {
      writer.write(size - 512, 512, ioBuffer(Buffer.alloc(512, 5)), 0);
      const { view } = image.snapshots()[0]!;
      const last = readDisk(image.snapshotDisk(view), size - 512);
      expect([last[0], readDisk(image.vmState(view))[511]]).to.deep.equal([3, 4]);
    });
    qemuImg('check', path);
  });

  it('is no part of raw images', () => {
    const path = folder.write('disk.raw', Buffer.alloc(4096));
    const open = (image: { activeVmState(): unknown }) => () => image.activeVmState();
    withImage(path, ({ image }) => expectImageError('ENOTSUP', /no VM state/, open(image)), {
      format: 'raw',
    });
  });
});

describe('snapshots of the same name', () => {
  const folder = useTempFolder();

  it('are allowed where that is said, and empty names too', () => {
    const path = folder.at('disk.qcow2');
    qemuImg('create', '-f', 'qcow2', path, '1M');
    const bytes = new IoBuffer(MIB);
    withWritable(path, ({ image, writer }) => {
      writer.createSnapshot('same');
      expectImageError('EEXIST', /'same' already/, () => writer.createSnapshot('same'));
      expectImageError('ENAMETOOLONG', /of 0 bytes/, () => writer.createSnapshot(''));
      bytes.bytes.fill(4);
      writer.write(0, MIB, bytes, 0);
      writer.createSnapshot('same', { allowDuplicateName: true });
      writer.createSnapshot('', { allowDuplicateName: true });
      const named = image.snapshots().map(({ snapshot }) => [snapshot.id, snapshot.name]);
      expect(named).to.deep.equal([
        ['1', 'same'],
        ['2', 'same'],
        ['3', ''],
      ]);
      writer.deleteSnapshot(image.snapshots()[0]!.view);
      writer.revertTo(image.snapshots()[0]!.view);
    });
    qemuImg('check', path);
    qemuIo(path, 'read -P 4 0 1M');
  });
});
