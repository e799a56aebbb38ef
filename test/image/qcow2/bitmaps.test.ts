import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import type { ErrnoName } from '#src/errors.js';
import { BITMAP_FLAG, checkBitmapTables, isUsable, readBitmaps } from '#src/image/qcow2/bitmaps.js';
import { readHeader } from '#src/image/qcow2/header.js';
import { EXTENSION_TYPE } from '#src/image/qcow2/layout.js';
import { MemoryStorage } from '#src/storage/memory.js';
import { expectImageError } from '../../helpers/errors.js';
import { buildImage } from '../../helpers/image-builder.js';
import type { BitmapSpec, ImageSpec } from '../../helpers/image-spec.js';
import { runInProcess } from '../../helpers/in-process.js';
import { tryQemuImg } from '../../helpers/qemu.js';
import { useTempFolder } from '../../helpers/temp.js';

function build(spec: Partial<ImageSpec>): Buffer {
  return buildImage({ size: 1 << 20, ...spec }).bytes;
}

function read(bytes: Buffer) {
  const storage = new MemoryStorage(bytes);
  return readBitmaps(storage, readHeader(storage));
}

/** An image whose bitmaps extension has these numbers. */
function withExtension(nbBitmaps: number, size: number, offset: number): Buffer {
  const bytes = build({ bitmaps: [{ name: 'a' }] });
  const at = bytes.indexOf(Buffer.from('238528750000001800000001', 'hex')) + 8;
  bytes.writeUInt32BE(nbBitmaps, at);
  bytes.writeBigUInt64BE(BigInt(size), at + 8);
  bytes.writeBigUInt64BE(BigInt(offset), at + 16);
  return bytes;
}

describe('readBitmaps()', () => {
  const temp = useTempFolder();

  it('reads the directory', () => {
    const bitmaps: BitmapSpec[] = [
      { name: 'a', granularityBits: 9 },
      { name: 'b'.repeat(1023), granularityBits: 31, fields: { flags: BITMAP_FLAG.AUTO } },
    ];
    expect(read(build({ bitmaps }))).to.deep.equal([
      {
        name: 'a',
        flags: 0,
        granularity: 512,
        tableOffset: 0x20000,
        tableSize: 1,
        extraDataSize: 0,
        entryOffset: 0,
      },
      {
        name: 'b'.repeat(1023),
        flags: 2,
        granularity: 2 ** 31,
        tableOffset: 0x30000,
        tableSize: 1,
        extraDataSize: 0,
        entryOffset: 32,
      },
    ]);
  });

  it('takes bitmaps for gone where the autoclear bit is not set', () => {
    const bytes = build({ bitmaps: [{ name: 'a' }], header: { autoclearFeatures: 0n } });
    expect(read(bytes)).to.deep.equal([]);
  });

  it('finds none where there is no extension', () => {
    expect(read(build({ header: { autoclearFeatures: 1n } }))).to.deep.equal([]);
  });

  const extensions: [what: string, numbers: [number, number, number], RegExp, ErrnoName?][] = [
    ['no bitmaps', [0, 32, 0x30000], /zero bitmaps/],
    ['65,536 bitmaps', [65536, 32, 0x30000], /too many bitmaps: 65536 \(at most 65535\)/],
    ['an unaligned directory', [1, 32, 0x30008], /invalid bitmap directory offset/],
    ['a directory over the header', [1, 32, 0], /invalid bitmap directory offset/],
    ['a directory at 2^63', [1, 32, 2 ** 63], /past the end/, 'EIO'],
    ['a directory above its limit', [1, 1024 * 65535 + 1, 0x30000], /exceeds the maximum/],
    ['a directory of 2^63 bytes', [1, 2 ** 63, 0x30000], /exceeds the maximum/],
    ['a directory past the end', [1, 32, 0x7000_0000], /past the end/, 'EIO'],
    ['fewer entries than counted', [2, 32, 0x30000], /inconsistent/],
    ['more entries than counted', [1, 64, 0x30000], /inconsistent|constraints/],
    ['an entry that is cut', [1, 24, 0x30000], /inconsistent/],
  ];
  for (const [what, numbers, message, code = 'EINVAL'] of extensions) {
    it(`refuses ${what}`, () => {
      const bytes = withExtension(...numbers);
      expectImageError(code, message, () => read(bytes));
      expect(tryQemuImg('info', temp.write('image', bytes)).status).to.equal(1);
    });
  }

  const entries: [what: string, bitmap: Partial<BitmapSpec>][] = [
    ['reserved flags', { fields: { flags: 8 } }],
    ['another type', { fields: { type: 2 } }],
    ['bits for 256 bytes', { granularityBits: 8 }],
    ['bits for 2^32 bytes', { granularityBits: 32 }],
    ['a name of 1024 bytes', { name: 'x'.repeat(1024) }],
    ['no table', { fields: { bitmapTableSize: 0 } }],
    ['an unaligned table', { fields: { bitmapTableOffset: 0x30001 } }],
  ];
  for (const [what, bitmap] of entries) {
    it(`refuses an entry with ${what}, as qemu-img does`, () => {
      const bytes = build({ bitmaps: [{ name: 'a', ...bitmap }] });
      expect(tryQemuImg('info', temp.write('image', bytes)).status).to.equal(1);
      expectImageError('EINVAL', /[Bb]itmap/, () => read(bytes));
    });
  }

  it('refuses a table that is too short for the disk, but where it is in use', () => {
    const entry = { name: 'a', granularityBits: 9 };
    const bytes = (flags: number) =>
      build({ size: 1 << 30, bitmaps: [{ ...entry, fields: { flags, bitmapTableSize: 1 } }] });
    expectImageError('EINVAL', /doesn't satisfy the constraints/, () => read(bytes(0)));
    expect(tryQemuImg('info', temp.write('image', bytes(0))).status).to.equal(1);
    expect(read(bytes(BITMAP_FLAG.IN_USE))).to.have.lengthOf(1);
  });

  it('lets nothing be written where a table or what it names is not in the file, or not as long as it must be', () => {
    const disk = { size: 1 << 20, bitmaps: [{ name: 'a', granularityBits: 9 }] };
    const bytes = build(disk);
    const [bitmap] = read(bytes);
    const storage = (offset: bigint) => {
      const changed = Buffer.from(bytes);
      changed.writeBigUInt64BE(offset, bitmap!.tableOffset);
      return new MemoryStorage(changed);
    };
    const check = (whole: boolean, offset: bigint, fields: object = {}) => {
      const header = readHeader(storage(0n));
      checkBitmapTables(storage(offset), header, [{ ...bitmap!, ...fields }], whole);
    };
    check(true, 0n);
    const wrong = /Could not read bitmap_table table from image for bitmap 'a'/;
    expectImageError('EINVAL', wrong, () => check(true, 1n << 40n));
    for (const tableOffset of [2 ** 40, 2 ** 53 + 2 ** 16]) {
      expectImageError('EINVAL', wrong, () => check(true, 0n, { tableOffset }));
      check(false, 0n, { tableOffset });
    }
    expectImageError('EINVAL', /bitmap 'a' from image.* 2 entries, not 1/, () =>
      check(false, 0n, { tableSize: 2 }),
    );
    check(true, 1n << 40n, { flags: BITMAP_FLAG.IN_USE });
  });

  it('is told of as it is where there are 65,535, and not written to where their tables are one', async () => {
    const bytes = build({ bitmaps: [{ name: '12345678' }] });
    const at = bytes.indexOf(Buffer.from('238528750000001800000001', 'hex')) + 8;
    const [count, size] = [65_535, 32];
    const place = Number(bytes.readBigUInt64BE(at + 16));
    const directory = Buffer.alloc(count * size);
    for (let entry = 0; entry < count; entry++) {
      bytes.copy(directory, entry * size, place, place + size);
      directory.write(String(entry).padStart(8, '0'), entry * size + size - 8);
    }
    bytes.writeUInt32BE(count, at);
    bytes.writeBigUInt64BE(BigInt(directory.length), at + 8);
    bytes.writeBigUInt64BE(BigInt(bytes.length), at + 16);
    const path = temp.write('many.qcow2', Buffer.concat([bytes, directory]));
    const { status, stdout } = await runInProcess(['info', path], temp.path);
    expect([status, stdout.match(/name: /g)!.length]).to.deep.equal([0, count]);
    const storage = new MemoryStorage(readFileSync(path));
    const header = readHeader(storage);
    const bitmaps = readBitmaps(storage, header).map((one) => ({ ...one, tableSize: 100 }));
    expectImageError('EINVAL', /lie over each other \(52428000 bytes in a file of/, () =>
      checkBitmapTables(storage, header, bitmaps, true),
    );
  });

  it('reads one with extra data, which says whether the bits may be used', () => {
    const { IN_USE, EXTRA_DATA_COMPATIBLE } = BITMAP_FLAG;
    const usable = (flags: number) => {
      const extraData = Buffer.alloc(8, 1);
      const bytes = build({ bitmaps: [{ name: 'a', extraData, fields: { flags } }] });
      const [bitmap] = read(bytes);
      expect(bitmap).to.include({ name: 'a', extraDataSize: 8 });
      return isUsable(bitmap!);
    };
    expect(usable(0)).to.equal(false);
    expect(usable(EXTRA_DATA_COMPATIBLE)).to.equal(true);
    expect(usable(EXTRA_DATA_COMPATIBLE | IN_USE)).to.equal(false);
  });

  it('refuses a reserved field that is set', () => {
    const data = Buffer.alloc(24);
    data.writeUInt32BE(1, 4);
    const bytes = build({ extensions: [{ type: EXTENSION_TYPE.BITMAPS, data }] });
    expectImageError('EINVAL', /Reserved field/, () => read(bytes));
  });
});
