import { expect } from 'chai';
import { MAX_FREED_RUNS, ImageState } from '#src/shared/image-state.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { qemuImg, qemuIo, tryQemuImg } from '../../helpers/qemu.js';
import { useTempFolder } from '../../helpers/temp.js';
import { withWritable } from '../../helpers/writable-image.js';

const CLUSTER = 4096;

describe('allocation', () => {
  const folder = useTempFolder();

  it('finds room for tables that are longer than what one refcount block counts', () => {
    const path = folder.at('disk.qcow2');
    const options = 'cluster_size=512,refcount_bits=64';
    qemuImg('create', '-f', 'qcow2', '-o', options, path, '1M');
    const bytes = new IoBuffer(1 << 20);
    withWritable(path, ({ writer, image }) => {
      // Its L1 table has 512 clusters; a block counts 64.
      writer.resize(1 << 30);
      bytes.bytes.fill(1);
      writer.write((1 << 30) - bytes.length, bytes.length, bytes, 0);
      writer.createSnapshot('first');
      bytes.bytes.fill(2);
      writer.write(0, bytes.length, bytes, 0);
      writer.createSnapshot('second');
      writer.revertTo(image.snapshots()[0]!.view);
      writer.deleteSnapshot(image.snapshots()[1]!.view);
      writer.flushAll();
    });
    qemuImg('check', path);
    qemuIo(path, 'read -P 1 1023M 1M', 'read -P 0 0 1M');
  });

  it('is not undone where a flush fails behind the change', () => {
    const path = folder.at('disk.qcow2');
    const size = 2 << 20;
    qemuImg('create', '-f', 'qcow2', '-o', 'cluster_size=4k', path, String(size));
    const bytes = new IoBuffer(size);
    const read = new IoBuffer(CLUSTER);
    withWritable(path, ({ writer, image, storage, memory }) => {
      bytes.bytes.fill(1);
      writer.write(0, size, bytes, 0);
      writer.createSnapshot('all');
      const state = new ImageState(memory.write!.state);
      bytes.bytes.fill(2);
      let failed = 0;
      for (let at = 0; at < size; at += CLUSTER) {
        // Runs of no clusters: the list of what was freed is full, and the next one has to flush.
        for (let n = 0; state.freedRuns < MAX_FREED_RUNS; n++) state.addFreedRun(10 * n + 5, 0);
        storage.failAfter(((at / CLUSTER) % 7) + 1, 'EIO', false);
        try {
          writer.write(at, CLUSTER, bytes, 0);
        } catch {
          failed++;
        }
        storage.heal();
        image.enter();
        image.disk.read(at, CLUSTER, read, 0);
        image.leave();
        expect(read.bytes[0]).to.be.oneOf([1, 2]);
        expect(read.bytes.every((byte) => byte === read.bytes[0])).to.equal(true);
      }
      expect(failed).to.be.greaterThan(10);
      // Whoever was told of a failure writes again; nothing is where something else is.
      writer.write(0, size, bytes, 0);
      writer.flushAll();
    });
    expect(tryQemuImg('check', path).status).to.be.oneOf([0, 3]);
    qemuIo(path, `read -P 2 0 ${size}`);
  });

  it('reads the snapshots again after it failed to', () => {
    const path = folder.at('disk.qcow2');
    qemuImg('create', '-f', 'qcow2', path, '1M');
    withWritable(path, ({ image, storage, attach }) => {
      for (const name of ['a', 'b', 'c']) image.writer!.createSnapshot(name);
      const other = attach(2);
      const names = () => other.snapshots().map(({ snapshot }) => snapshot.name);
      expect(names()).to.deep.equal(['a', 'b', 'c']);
      image.writer!.deleteSnapshot(image.snapshots()[0]!.view);
      storage.failRead = true;
      expect(names).to.throw(/pread/);
      expect(names()).to.deep.equal(['b', 'c']);
      other.writer!.deleteSnapshot(other.snapshots()[0]!.view);
      expect(names()).to.deep.equal(['c']);
      other.writer!.flushAll();
    });
    qemuImg('check', path);
  });
});
