/** What becomes of bitmaps while an image is written to, by its writer alone. */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { AttachedImage } from '#src/image/attach.js';
import { allocateImageMemory } from '#src/image/memory.js';
import { closeImage, openImage } from '#src/image/open.js';
import { BITMAP_FLAG, readBitmaps } from '#src/image/qcow2/bitmaps.js';
import { readEntries } from '#src/image/qcow2/bitmap-entries.js';
import { readHeader } from '#src/image/qcow2/header.js';
import type { ImageWriter } from '#src/image/writer.js';
import { MemoryStorage } from '#src/storage/memory.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { expectImageError } from '../../helpers/errors.js';
import { buildImage } from '../../helpers/image-builder.js';
import type { BitmapSpec } from '../../helpers/image-spec.js';
import { qemuImg } from '../../helpers/qemu.js';
import { qemuDirty } from '../../helpers/qemu-bitmaps.js';
import { useTempFolder } from '../../helpers/temp.js';

const SIZE = 1 << 20;
const { AUTO, EXTRA_DATA_COMPATIBLE, IN_USE } = BITMAP_FLAG;

describe('BitmapKeeper', () => {
  const temp = useTempFolder();

  function build(...bitmaps: BitmapSpec[]): string {
    return temp.write('image', buildImage({ size: SIZE, bitmaps }).bytes);
  }

  function use(path: string, body: (writer: ImageWriter) => void): void {
    const { description } = openImage(path, { writable: true, lock: 'write' });
    try {
      const memory = allocateImageMemory(description, { cacheSize: 256 << 10, owners: 1 });
      body(new AttachedImage(description, memory, 1).writer!);
    } finally {
      closeImage(description);
    }
  }

  function write(writer: ImageWriter, offset: number, length = 512): void {
    writer.write(offset, length, new IoBuffer(length), 0);
  }

  function flagsOf(path: string): number[] {
    const storage = new MemoryStorage(readFileSync(path));
    return readBitmaps(storage, readHeader(storage)).map(({ flags }) => flags);
  }

  function entriesOf(path: string): Buffer[] {
    const storage = new MemoryStorage(readFileSync(path));
    return readEntries(storage, readHeader(storage).extensions.bitmaps!);
  }

  it('marks those that record, before the first change, and saves them at the end', () => {
    const auto = { fields: { flags: AUTO } };
    const path = build({ name: 'on', ...auto }, { name: 'off' }, { name: 'too', ...auto });
    use(path, (writer) => {
      writer.flushAll();
      writer.close();
      expect(flagsOf(path)).to.deep.equal([AUTO, 0, AUTO]);
      write(writer, 70_000);
      expect(flagsOf(path)).to.deep.equal([AUTO | IN_USE, 0, AUTO | IN_USE]);
      writer.flushAll();
      expect(flagsOf(path)).to.deep.equal([AUTO | IN_USE, 0, AUTO | IN_USE]);
      writer.close();
      expect(flagsOf(path)).to.deep.equal([AUTO, 0, AUTO]);
      // And once more.
      writer.discard(SIZE - 512, 512);
      writer.close();
    });
    const dirty = [
      [65536, 65536],
      [SIZE - 65536, 65536],
    ];
    expect(qemuDirty(path, 'on')).to.deep.equal(dirty);
    expect(qemuDirty(path, 'too')).to.deep.equal(dirty);
    expect(qemuDirty(path, 'off')).to.deep.equal([]);
    qemuImg('check', path);
  });

  it('marks all where the size changes, and refuses that with an inconsistent one', () => {
    const path = build({ name: 'off' });
    use(path, (writer) => {
      writer.resize(2 * SIZE);
      expect(flagsOf(path)).to.deep.equal([IN_USE]);
      writer.close();
      expect(flagsOf(path)).to.deep.equal([0]);
      writer.holdBitmaps();
      expect(flagsOf(path)).to.deep.equal([IN_USE]);
    });
    use(path, (writer) => {
      expectImageError('EINVAL', /'off' is inconsistent/, () => writer.resize(SIZE));
      write(writer, 0);
      writer.close();
    });
    expect(flagsOf(path)).to.deep.equal([IN_USE]);
    expect(qemuImg('check', path)).to.contain('No errors');
  });

  it('keeps extra data, and what must not be used because of it', () => {
    const extraData = Buffer.from('extra data');
    const flags = AUTO | EXTRA_DATA_COMPATIBLE;
    const path = build(
      { name: 'may be used', extraData, fields: { flags } },
      { name: 'may not', extraData, fields: { flags: AUTO } },
      { name: 'may not, and is off', extraData, fields: { flags: 0 } },
    );
    const before = entriesOf(path);
    use(path, (writer) => {
      write(writer, 0);
      writer.close();
      expectImageError('EINVAL', /unknown extra data/, () => writer.resize(2 * SIZE));
    });
    // What is not recorded is not true any more.
    expect(flagsOf(path)).to.deep.equal([flags, AUTO | IN_USE, 0]);
    const after = entriesOf(path);
    expect(after.map((entry) => entry.subarray(16))).to.deep.equal(
      before.map((entry) => entry.subarray(16)),
    );
    expect(after[0]!.subarray(0, 8)).not.to.deep.equal(before[0]!.subarray(0, 8));
    expect(after[2]).to.deep.equal(before[2]);
  });

  it('refuses to open an image for writing whose table is damaged', () => {
    const path = build({ name: 'on', fields: { flags: AUTO } });
    const bytes = readFileSync(path);
    const storage = new MemoryStorage(bytes);
    const [bitmap] = readBitmaps(storage, readHeader(storage));
    bytes.writeBigUInt64BE(0x123n, bitmap!.tableOffset);
    writeFileSync(path, bytes);
    const open = () => openImage(path, { writable: true, lock: 'write' });
    expectImageError('EINVAL', /Could not read bitmap_table table.*'on'/, open);
    expect(readFileSync(path).equals(bytes)).to.equal(true);
  });
});
