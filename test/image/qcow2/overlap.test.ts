import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { expect } from 'chai';
import { AttachedImage } from '#src/image/attach.js';
import { allocateImageMemory } from '#src/image/memory.js';
import { closeImage, openImage } from '#src/image/open.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { expectImageError } from '../../helpers/errors.js';
import { qemuImg, qemuIo } from '../../helpers/qemu.js';
import { useTempFolder } from '../../helpers/temp.js';

const CLUSTER = 65536;
const COPIED = 1n << 63n;

/** An image whose first L2 entry is changed to lead where it must not. */
describe('OverlapGuard', () => {
  const folder = useTempFolder();

  /** Where the tables of the image lie, from its header. */
  function places(path: string) {
    const bytes = readFileSync(path);
    const l1 = Number(bytes.readBigUInt64BE(40));
    const refcountTable = Number(bytes.readBigUInt64BE(48));
    const snapshots = Number(bytes.readBigUInt64BE(64));
    const l2 = Number(bytes.readBigUInt64BE(l1) & ~COPIED);
    const refcountBlock = Number(bytes.readBigUInt64BE(refcountTable));
    const inactiveL1 = Number(bytes.readBigUInt64BE(snapshots));
    const extension = bytes.indexOf(Buffer.from('2385287500000018', 'hex'));
    const bitmaps = Number(bytes.readBigUInt64BE(extension + 24));
    return { header: 0, l1, l2, refcountTable, refcountBlock, snapshots, inactiveL1, bitmaps };
  }

  for (const [target, words] of [
    ['l1', /active L1 table/],
    ['l2', /active L2 table/],
    ['refcountTable', /refcount table/],
    ['refcountBlock', /refcount block/],
    ['snapshots', /snapshot table/],
    ['inactiveL1', /inactive L1 table/],
    ['bitmaps', /bitmap directory/],
  ] as const) {
    it(`refuses data over the ${target}, marks the image corrupt, and changes nothing else`, () => {
      const path = folder.at('disk.qcow2');
      qemuImg('create', '-f', 'qcow2', path, '1M');
      qemuIo(path, 'write -P 1 0 512k');
      qemuImg('snapshot', '-c', 'one', path);
      qemuIo(path, 'write -P 2 0 512k');
      qemuImg('bitmap', '--add', '--disable', path, 'off');
      const found = places(path);
      const entry = Buffer.alloc(8);
      entry.writeBigUInt64BE(COPIED | BigInt(found[target]));
      const fd = openSync(path, 'r+');
      writeSync(fd, entry, 0, 8, found.l2);
      closeSync(fd);
      const before = readFileSync(path);

      const { description } = openImage(path, { writable: true, lock: 'write' });
      const memory = allocateImageMemory(description, { cacheSize: 256 << 10, owners: 1 });
      const { writer } = new AttachedImage(description, memory, 1);
      const bytes = new IoBuffer(CLUSTER);
      expectImageError('EIO', words, () => writer!.write(0, CLUSTER, bytes, 0));
      // From now on nothing is written any more, and no flush says that it was.
      expectImageError('EIO', /writing has ended/, () => writer!.write(CLUSTER, 512, bytes, 0));
      expectImageError('EIO', /writing has ended/, () => writer!.flush());
      closeImage(description);

      const after = readFileSync(path);
      // incompatible_features, bit 1.
      expect(after[79]! & 2).to.equal(2);
      after[79]! &= ~2;
      expect(after.equals(before)).to.equal(true);
      expectImageError('EACCES', /corrupt/, () =>
        openImage(path, { writable: true, lock: 'write' }),
      );
    });
  }
});
