import { expect } from 'chai';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { expectImageError } from '../../helpers/errors.js';
import { qemuImg } from '../../helpers/qemu.js';
import { useTempFolder } from '../../helpers/temp.js';
import { withWritable } from '../../helpers/writable-image.js';

const BYTES = new IoBuffer(4096);
BYTES.bytes.fill(7);

describe('flush()', () => {
  const folder = useTempFolder();

  function makeImage(options: string): string {
    const path = folder.at('disk.qcow2');
    qemuImg('create', '-f', 'qcow2', '-o', options, path, '64M');
    return path;
  }

  it('flushes the file once where only data was written, and not where nothing was', () => {
    withWritable(makeImage('compat=1.1'), ({ writer, storage }) => {
      writer.write(0, 4096, BYTES, 0);
      writer.flush();
      const before = storage.flushes;
      writer.flush();
      expect(storage.flushes).to.equal(before);
      writer.write(0, 4096, BYTES, 0);
      writer.flush();
      expect(storage.flushes).to.equal(before + 1);
    });
  });

  for (const options of ['compat=1.1', 'lazy_refcounts=on']) {
    it(`never succeeds again once it failed, whoever called it: ${options}`, () => {
      withWritable(makeImage(options), ({ writer, storage }) => {
        writer.write(0, 4096, BYTES, 0);
        writer.flushAll();
        writer.write(0, 4096, BYTES, 0);
        storage.failFlush = true;
        // With lazy refcounts it is the dirty bit's flush that fails, in the middle of a write.
        expect(() => {
          writer.write(32 << 20, 4096, BYTES, 0);
          writer.flush();
        }).to.throw(/fdatasync/);
        expectImageError('EIO', /writing has ended/, () => writer.flush());
        expectImageError('EIO', /writing has ended/, () => writer.flushAll());
        expectImageError('EIO', /writing has ended/, () => writer.write(0, 4096, BYTES, 0));
      });
    });
  }

  it('comes with every change where cache=writethrough', () => {
    const change = { cache: 'writethrough' } as const;
    withWritable(
      makeImage('compat=1.1'),
      ({ writer, storage }) => {
        for (const body of [
          () => writer.write(0, 4096, BYTES, 0),
          () => writer.write(0, 4096, BYTES, 0),
          () => writer.zero(0, 65536),
          () => writer.discard(0, 65536),
          () => writer.preallocate(0, 65536),
          () => writer.resize(128 << 20),
        ]) {
          const before = storage.flushes;
          body();
          expect(storage.flushes).to.be.greaterThan(before);
        }
      },
      change,
    );
  });

  it('makes a hole of a raw image durable', () => {
    const path = folder.write('disk.raw', Buffer.alloc(1 << 20, 1));
    const test = ({ writer, storage }: Parameters<Parameters<typeof withWritable>[1]>[0]) => {
      writer.discard(0, 65536);
      writer.flush();
      expect(storage.flushes).to.equal(1);
    };
    withWritable(path, test, {}, 'raw');
  });
});
