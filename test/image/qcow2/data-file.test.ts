/** Images whose guest clusters lie in a file of their own, written to: QEMU on both sides. */
import { readFileSync, statSync } from 'node:fs';
import { expect } from 'chai';
import { closeImage, openImage } from '#src/image/open.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { expectImageError } from '../../helpers/errors.js';
import { qemuImg, qemuIo, qemuRead, tryQemuIo } from '../../helpers/qemu.js';
import { pattern } from '../../helpers/random.js';
import { readImage } from '../../helpers/read.js';
import { useTempFolder } from '../../helpers/temp.js';
import { withWritable } from '../../helpers/writable-image.js';

const KIB = 1024;
const MIB = 1 << 20;
const CLUSTER = 64 * KIB;

describe('writing to an image with a data file', () => {
  const folder = useTempFolder();

  function create(options = '', size = String(MIB)): string {
    const path = folder.at('disk.qcow2');
    const all = `data_file=${folder.at('data')}${options}`;
    qemuImg('create', '-f', 'qcow2', '-o', all, path, size);
    return path;
  }

  function filled(length: number, fill: number): IoBuffer {
    const buffer = new IoBuffer(length);
    buffer.bytes.fill(fill);
    return buffer;
  }

  for (const options of ['', ',extended_l2=on', ',data_file_raw=on', ',cluster_size=512']) {
    it(`goes on from what QEMU wrote, and QEMU from there${options}`, () => {
      const path = create(options);
      const wanted = Buffer.alloc(MIB);
      const fill = (from: number, length: number, value: number) =>
        wanted.fill(value, from * KIB, (from + length) * KIB);
      qemuIo(path, 'write -P 1 0 300k', 'discard 64k 64k', 'write -z 128k 64k');
      fill(0, 300, 1).fill(0, 64 * KIB, 192 * KIB);
      withWritable(path, ({ writer }) => {
        writer.write(70 * KIB, 90 * KIB, filled(90 * KIB, 2), 0);
        fill(70, 90, 2);
        writer.discard(256 * KIB, CLUSTER);
        fill(256, 64, 0);
        writer.zero(0, 10 * KIB);
        fill(0, 10, 0);
        writer.preallocate(512 * KIB, CLUSTER);
        writer.write(900 * KIB, 4 * KIB, filled(4 * KIB, 3), 0);
        fill(900, 4, 3);
        writer.flushAll();
      });
      qemuImg('check', path);
      expect(qemuRead(path).equals(wanted)).to.equal(true);
      qemuIo(path, 'write -P 4 512k 4k', 'write -P 5 256k 1k', 'write -z -u 900k 2k');
      fill(512, 4, 4);
      fill(256, 1, 5);
      fill(900, 2, 0);
      expect(readImage(path).equals(wanted)).to.equal(true);
      if (!options.includes('raw')) return;
      expect(readFileSync(folder.at('data')).equals(wanted)).to.equal(true);
    });
  }

  for (const raw of ['off', 'on']) {
    it(`lets the data file be as long as the disk, data_file_raw=${raw}`, () => {
      const path = create(`,data_file_raw=${raw}`, String(MIB + 512));
      const size = () => statSync(folder.at('data')).size;
      // QEMU makes a raw one as long as its clusters.
      const first = size();
      expect(first).to.be.below(MIB + 2 * CLUSTER);
      withWritable(path, ({ writer, image }) => {
        // Of the last cluster there is one sector.
        writer.write(MIB, 100, filled(100, 7), 0);
        writer.preallocate(0, MIB + 512);
        expect(size()).to.equal(first);
        writer.resize(3 * MIB + 1024);
        expect(size()).to.equal(3 * MIB + 1024);
        writer.write(2 * MIB, MIB, filled(MIB, 8), 0);
        writer.resize(2 * MIB + 512);
        expect(size()).to.equal(2 * MIB + 512);
        writer.resize(4 * MIB);
        expect(image.disk.size).to.equal(4 * MIB);
        writer.flushAll();
      });
      qemuImg('check', path);
      const wanted = Buffer.alloc(4 * MIB);
      wanted.fill(7, MIB, MIB + 100).fill(8, 2 * MIB, 2 * MIB + 512);
      expect(qemuRead(path).equals(wanted)).to.equal(true);
      if (raw === 'on') expect(readFileSync(folder.at('data')).equals(wanted)).to.equal(true);
    });
  }

  it('shows no bytes behind the disk of a raw data file where it grows', () => {
    const path = create(',data_file_raw=on');
    folder.write('data', Buffer.alloc(3 * MIB, 9));
    withWritable(path, ({ writer }) => {
      writer.resize(2 * MIB);
      writer.flushAll();
    });
    qemuImg('check', path);
    const wanted = Buffer.concat([Buffer.alloc(MIB, 9)], 2 * MIB);
    expect(readImage(path).equals(wanted)).to.equal(true);
    expect(readFileSync(folder.at('data')).equals(wanted)).to.equal(true);
  });

  it('never shows what lies in the data file where nothing was written', () => {
    const path = create();
    folder.write('data', Buffer.alloc(MIB, 9));
    withWritable(path, ({ writer }) => {
      writer.write(10 * KIB, KIB, filled(KIB, 1), 0);
      writer.preallocate(CLUSTER, CLUSTER);
      writer.write(CLUSTER + 512, 512, filled(512, 2), 0);
      writer.flushAll();
    });
    const wanted = Buffer.alloc(MIB);
    wanted.fill(1, 10 * KIB, 11 * KIB).fill(2, CLUSTER + 512, CLUSTER + 1024);
    qemuImg('check', path);
    expect(qemuRead(path).equals(wanted)).to.equal(true);
    expect(readImage(path).equals(wanted)).to.equal(true);
  });

  it('gives discarded space back, and takes no space in the image', () => {
    const path = create();
    withWritable(path, ({ writer }) => {
      const before = statSync(path).size;
      writer.write(0, MIB, filled(MIB, 1), 0);
      writer.discard(0, MIB);
      writer.flushAll();
      expect(statSync(path).size).to.be.at.most(before + 2 * CLUSTER);
      expect(statSync(folder.at('data')).blocks * 512).to.be.below(CLUSTER);
    });
    qemuImg('check', path);
  });

  it('refuses what QEMU refuses: snapshots, compressed data; VM state where it is the disk', () => {
    withWritable(create(), ({ writer }) => {
      expectImageError('ENOTSUP', /no snapshots/, () => writer.createSnapshot('one'));
      expectImageError('ENOTSUP', /no compressed data/, () =>
        writer.writeCompressed(0, new Uint8Array(100), 100),
      );
      writer.writeVmState(0, CLUSTER, filled(CLUSTER, 5), 0);
      writer.flushAll();
    });
    qemuImg('check', folder.at('disk.qcow2'));
    qemuIo(folder.at('disk.qcow2'), 'read -b -P 5 0 64k', 'read -P 0 0 1M');
    withWritable(create(',data_file_raw=on'), ({ writer }) => {
      expectImageError('ENOTSUP', /no VM state/, () =>
        writer.writeVmState(0, 512, filled(512, 5), 0),
      );
    });
  });

  it('locks both files as one who writes', () => {
    const path = create();
    withWritable(path, () => {
      const reader = tryQemuIo('-r', '-c', 'read 0 512', path);
      expect(reader.stderr).to.match(/Failed to get shared "(write|consistent read)" lock/);
      const alone = tryQemuIo('-f', 'raw', '-c', 'write 0 512', folder.at('data'));
      expect(alone.stderr).to.match(/Failed to get "write" lock/);
    });
  });

  it('opens no data file for writing that the policy keeps it from', () => {
    const path = create();
    const policy = { writable: true, lock: 'write' } as const;
    const open = (more: object) => () => openImage(path, { ...policy, ...more });
    expectImageError('EPERM', /no-backing/, open({ noBacking: true }));
    closeImage(open({ backingRoot: folder.path })().description);
    expectImageError('EPERM', /lies outside/, open({ backingRoot: '/usr' }));
  });

  it('writes nothing where an entry has another cluster’s place', () => {
    const path = create();
    qemuIo(path, 'write -P 1 64k 64k');
    const bytes = readFileSync(path);
    const right = Buffer.from('8000000000010000', 'hex');
    const at = bytes.indexOf(right);
    Buffer.from('8000000000020000', 'hex').copy(bytes, at);
    folder.write('disk.qcow2', bytes);
    const before = readFileSync(folder.at('data'));
    withWritable(path, ({ writer }) => {
      expectImageError('EIO', /does not match the guest's/, () =>
        writer.write(CLUSTER + 512, 512, filled(512, 2), 0),
      );
    });
    expect(readFileSync(folder.at('data')).equals(before)).to.equal(true);
  });

  it('flushes the data file, and ends where that fails', () => {
    const path = create();
    withWritable(path, ({ writer, storage, dataStorage }) => {
      writer.write(0, CLUSTER, filled(CLUSTER, 1), 0);
      writer.flush();
      const [image, data] = [storage.flushes, dataStorage!.flushes];
      expect(image).to.be.above(0);
      expect(data).to.equal(1);
      writer.write(0, CLUSTER, filled(CLUSTER, 2), 0);
      writer.flush();
      expect(dataStorage!.flushes).to.equal(2);
      writer.flush();
      expect(dataStorage!.flushes).to.equal(2);
      writer.write(0, CLUSTER, filled(CLUSTER, 3), 0);
      dataStorage!.failFlush = true;
      expect(() => writer.flush()).to.throw();
      expectImageError('EIO', /writing has ended/, () =>
        writer.write(0, CLUSTER, filled(CLUSTER, 4), 0),
      );
    });
    qemuImg('check', path);
  });

  it('holds what was written where the data file’s host fails and works again', () => {
    const path = create(',cluster_size=4k');
    const held = Buffer.alloc(MIB);
    withWritable(path, ({ writer, dataStorage }) => {
      for (let n = 0; n < 256; n++) {
        const bytes = pattern(n, 4096);
        const source = new IoBuffer(4096);
        bytes.copy(source.bytes);
        if (n % 5 === 0) dataStorage!.failAfter(0, 'ENOSPC', true);
        try {
          writer.write(n * 4096, 4096, source, 0);
          bytes.copy(held, n * 4096);
        } catch {
          dataStorage!.heal();
          writer.write(n * 4096, 4096, source, 0);
          bytes.copy(held, n * 4096);
        }
      }
      writer.flushAll();
    });
    qemuImg('check', path);
    expect(qemuRead(path).equals(held)).to.equal(true);
  });
});
