import { expect } from 'chai';
import crc32 from 'crc-32';
import fc from 'fast-check';
import { GPT_ENTRY, GPT_HEADER } from '#src/mount/partitions/gpt.js';
import { readPartitionTable } from '#src/mount/partitions/table.js';
import {
  DiskFile,
  extentsOf,
  fieldsOf,
  MIB,
  partitionIn4k,
  propertySeed,
  whyNo4k,
} from './disk-file.js';

const LINUX = '0fc63daf-8483-4772-8e79-3d69d8477de4';
const LBA = 512;

/** Changes the primary header, or its entries, and makes the CRC32s right again. */
function forge(
  disk: Pick<DiskFile, 'read' | 'write'>,
  change: (header: DataView, entries: DataView) => void,
): void {
  const header = Buffer.from(disk.read(LBA, LBA));
  const entries = Buffer.from(disk.read(2 * LBA, 128 * GPT_ENTRY.size));
  const view = new DataView(header.buffer, header.byteOffset, header.length);
  change(view, new DataView(entries.buffer, entries.byteOffset, entries.length));
  GPT_HEADER.set(view, 0, 'partitionEntryArrayCrc32', crc32.buf(entries) >>> 0);
  GPT_HEADER.set(view, 0, 'headerCrc32', 0);
  const headerSize = Math.min(GPT_HEADER.get(view, 0, 'headerSize'), LBA);
  GPT_HEADER.set(view, 0, 'headerCrc32', crc32.buf(header.subarray(0, headerSize)) >>> 0);
  disk.write(LBA, header);
  disk.write(2 * LBA, entries);
}

describe('GPT', () => {
  // sgdisk takes a second for each run, so it partitions one disk for all tests.
  const backupOffset = 64 * MIB - 33 * LBA;
  let primary: Buffer;
  let backup: Buffer;
  let disk: DiskFile;
  before(() => {
    const model = new DiskFile(64 * MIB);
    try {
      model.sgdisk(
        '-n1:2048:+8M',
        '-n2:0:+4M',
        '-n5:0:+1M',
        '-t2:ef00',
        '-A5:set:2',
        '-c1:one',
        '-c5:Größe 🐧',
      );
      primary = Buffer.from(model.read(0, 34 * LBA));
      backup = Buffer.from(model.read(backupOffset, 33 * LBA));
    } finally {
      model.remove();
    }
  });
  beforeEach(() => {
    disk = new DiskFile(64 * MIB);
    disk.write(0, primary);
    disk.write(backupOffset, backup);
  });
  afterEach(() => disk.remove());

  it('has the layout of the UEFI specification', () => {
    expect(GPT_HEADER.size).to.equal(92);
    expect(GPT_HEADER.offsets).to.include({
      headerCrc32: 16,
      myLba: 24,
      diskGuid: 56,
      partitionEntryLba: 72,
      partitionEntryArrayCrc32: 88,
    });
    expect(GPT_ENTRY.size).to.equal(128);
    expect(GPT_ENTRY.offsets).to.include({ startingLba: 32, attributes: 48, partitionName: 56 });
  });

  it('shows the partitions of sgdisk as sfdisk and libblkid do', () => {
    const table = disk.table();
    expect(table).to.include({ scheme: 'gpt', sectorSize: 512 });
    expect(table?.warnings).to.deep.equal([]);
    expect(extentsOf(table)).to.deep.equal(disk.sfdiskExtents());
    expect(fieldsOf(table)).to.deep.equal(disk.partx());
    expect(table?.partitions.map(({ number }) => number)).to.deep.equal([1, 2, 5]);
    expect(table?.partitions[0]).to.include({ type: LINUX, name: 'one', bootable: false });
    expect(table?.partitions[2]).to.include({ name: 'Größe 🐧', bootable: true });
  });

  it('shows the partitions of sfdisk, a name of full length among them', () => {
    const name = 'n'.repeat(36);
    disk.sfdisk(`label: gpt\nsize=8192, name="${name}"\nsize=2048\n`);
    expect(fieldsOf(disk.table())).to.deep.equal(disk.partx());
    expect(disk.table()?.partitions[0]?.name).to.equal(name);
  });

  it('shows no more than the 255 partitions that Linux has minors for', () => {
    const [count, size] = [8192, MIB + 4 * LBA];
    const memory = Buffer.alloc(size);
    memory.set(primary.subarray(0, 2 * LBA));
    const entry = primary.subarray(2 * LBA, 2 * LBA + GPT_ENTRY.size);
    for (let index = 0; index < count; index++) memory.set(entry, 2 * LBA + index * entry.length);
    const view = new DataView(memory.buffer, memory.byteOffset + LBA, LBA);
    const crc = crc32.buf(memory.subarray(2 * LBA, 2 * LBA + MIB)) >>> 0;
    GPT_HEADER.set(view, 0, 'numberOfPartitionEntries', count);
    GPT_HEADER.set(view, 0, 'partitionEntryArrayCrc32', crc);
    GPT_HEADER.set(view, 0, 'headerCrc32', 0);
    GPT_HEADER.set(view, 0, 'headerCrc32', crc32.buf(memory.subarray(LBA, LBA + 92)) >>> 0);
    const read = (at: number, length: number) =>
      at + length <= size ? memory.subarray(at, at + length) : Buffer.alloc(length);
    const table = readPartitionTable(read, 64 * MIB);
    expect(table?.partitions).to.have.lengthOf(255);
    expect(table?.partitions.at(-1)?.number).to.equal(255);
    expect(table?.warnings).to.deep.equal(['partitions past number 255 are left out']);
  });

  it('shows an empty table as one, with no warning', () => {
    disk.sfdisk('label: gpt\n');
    const empty = { scheme: 'gpt', sectorSize: 512, partitions: [], warnings: [] };
    expect(disk.table()).to.deep.equal(empty);
  });

  it('uses the backup where the primary header or its entries are damaged', () => {
    const whole = disk.table();
    const damages: [string, number, number][] = [
      ['signature', LBA, LBA],
      ['header has a wrong CRC32', LBA + 56, 16],
      ['entries have a wrong CRC32', 2 * LBA, LBA],
      ['signature', LBA, 33 * LBA],
    ];
    for (const [reason, offset, length] of damages) {
      const before = Buffer.from(disk.read(offset, length));
      disk.zero(offset, length);
      const table = disk.table();
      expect(table?.partitions).to.deep.equal(whole?.partitions);
      expect(table?.warnings).to.have.lengthOf(1);
      expect(table?.warnings[0]).to.include(reason);
      expect(table?.warnings[0]).to.include(`backup at LBA ${(64 * MIB) / 512 - 1}`);
      disk.write(offset, before);
    }
    expect(disk.table()).to.deep.equal(whole);
  });

  it('finds the backup of a disk that was grown', () => {
    const whole = disk.table();
    disk.resize(128 * MIB);
    expect(disk.table()).to.deep.equal(whole);
    // By the primary header, which is damaged but still tells where; then by the MBR alone.
    disk.zero(LBA + 56, 16);
    expect(disk.table()?.partitions).to.deep.equal(whole?.partitions);
    disk.zero(LBA, LBA);
    expect(disk.table()?.partitions).to.deep.equal(whole?.partitions);
    expect(disk.table()?.warnings).to.have.lengthOf(1);
  });

  it('takes an I/O error in the primary table for damage, but throws that of the MBR', () => {
    const whole = disk.table();
    const error = Object.assign(new Error('EIO'), { errno: -5, syscall: 'read' });
    const good = disk.read;
    let badFrom = LBA;
    const read = (offset: number, length: number) => {
      if (offset + length > badFrom && offset < 34 * LBA) throw error;
      return good(offset, length);
    };
    Object.assign(disk, { read });
    expect(disk.table()?.partitions).to.deep.equal(whole?.partitions);
    expect(disk.table()?.warnings[0]).to.include('EIO');
    badFrom = 0;
    expect(() => disk.table()).to.throw(error);
  });

  it('reports a protective MBR without a valid table', () => {
    disk.zero(LBA, 33 * LBA);
    disk.zero(64 * MIB - LBA, LBA);
    const table = disk.table();
    expect(table).to.include({ scheme: 'gpt' });
    expect(table?.partitions).to.deep.equal([]);
    expect(table?.warnings).to.have.lengthOf(1);
  });

  it('is not looked for without a protective record that starts at LBA 1', () => {
    const mbr = Buffer.from(disk.read(0, 512));
    disk.zero(446, 64);
    expect(disk.table()).to.equal(null);
    mbr.writeUInt32LE(2, 446 + 8);
    disk.write(0, mbr);
    expect(disk.table()).to.equal(null);
  });

  it('is used under a hybrid MBR, wherever its protective record is', () => {
    const whole = disk.table();
    disk.sgdisk('--hybrid=1:2');
    expect(disk.table()).to.deep.equal(whole);
    disk.sgdisk('--hybrid=1:2:EE');
    expect(disk.read(446, 64)[4], 'the first record').not.to.equal(0xee);
    expect(disk.table()).to.deep.equal(whole);
  });

  it('cuts or leaves out partitions past the end of the disk, and says so', () => {
    forge(disk, (_header, entries) => {
      GPT_ENTRY.set(entries, 0, 'endingLba', 2 ** 60);
      GPT_ENTRY.set(entries, GPT_ENTRY.size, 'startingLba', 2 ** 60);
      GPT_ENTRY.set(entries, GPT_ENTRY.size, 'endingLba', 2 ** 61);
      GPT_ENTRY.set(entries, 4 * GPT_ENTRY.size, 'endingLba', 5);
    });
    const table = disk.table();
    expect(extentsOf(table)).to.deep.equal([{ number: 1, offset: MIB, size: 63 * MIB }]);
    expect(table?.warnings).to.deep.equal([
      'partition 1 reaches past the end of the disk: cut',
      'partition 2 starts past the end of the disk: left out',
      'partition 5 ends before it starts: left out',
    ]);
  });

  it('takes larger entries, as the specification allows', () => {
    const whole = disk.table();
    forge(disk, (header, entries) => {
      for (const index of [4, 1]) {
        for (let at = 0; at < GPT_ENTRY.size; at += 4) {
          const value = entries.getUint32(index * 128 + at);
          entries.setUint32(index * 128 + at, 0);
          entries.setUint32(index * 256 + at, value);
        }
      }
      GPT_HEADER.set(header, 0, 'sizeOfPartitionEntry', 256);
      GPT_HEADER.set(header, 0, 'numberOfPartitionEntries', 64);
    });
    expect(disk.table()).to.deep.equal(whole);
  });

  it('refuses a header that contradicts the disk, whatever its CRC32', () => {
    const wrong: [keyof typeof GPT_HEADER.fields, number][] = [
      ['revision', 0x0002_0000],
      ['headerSize', 91],
      ['headerSize', 513],
      ['myLba', 2],
      ['firstUsableLba', 2 ** 40],
      ['firstUsableLba', 131_050],
      ['lastUsableLba', (64 * MIB) / 512],
      ['sizeOfPartitionEntry', 64],
      ['sizeOfPartitionEntry', 384],
      ['sizeOfPartitionEntry', 2 ** 31],
      ['numberOfPartitionEntries', 0],
      ['numberOfPartitionEntries', 2 ** 32 - 1],
      ['partitionEntryLba', 2 ** 40],
      ['partitionEntryLba', (64 * MIB) / 512 - 31],
    ];
    disk.zero(64 * MIB - LBA, LBA);
    const whole = Buffer.from(disk.read(LBA, LBA));
    for (const [field, value] of wrong) {
      forge(disk, (header) => GPT_HEADER.set(header, 0, field, value));
      expect(disk.table()?.warnings[0], `${field} = ${value}`).to.include('no GPT is valid');
      disk.write(LBA, whole);
      expect(disk.table()?.partitions).to.have.lengthOf(3);
    }
  });

  it('gives partitions that lie on the disk, whatever a header with right CRC32s says', () => {
    const image = Buffer.from(disk.read(0, MIB));
    const last = MIB / LBA - 1;
    const lba = fc.oneof(
      fc.nat(last + 2),
      fc.constantFrom(2 ** 31, 2 ** 32, 2 ** 53, 2 ** 63, 2 ** 64 - 2 ** 11),
    );
    const header = fc.record({
      partitionEntryLba: fc.oneof(fc.constant(2), lba),
      firstUsableLba: fc.nat(40),
      lastUsableLba: fc.integer({ min: last - 100, max: last + 1 }),
      numberOfPartitionEntries: fc.oneof(fc.constant(128), fc.nat(200)),
      headerSize: fc.integer({ min: 91, max: 600 }),
    });
    const entry = fc.record({ startingLba: lba, endingLba: lba, attributes: fc.bigInt(0n, 15n) });
    let countOfValid = 0;
    const property = fc.property(header, fc.array(entry, { maxLength: 128 }), (fields, entries) => {
      const copy = Buffer.from(image);
      const read = (offset: number, length: number) => copy.subarray(offset, offset + length);
      forge({ read, write: (offset, data) => void copy.set(data, offset) }, (view, array) => {
        for (const [field, value] of Object.entries(fields)) {
          GPT_HEADER.set(view, 0, field as keyof typeof fields, value);
        }
        for (const [index, values] of entries.entries()) {
          const partitionTypeGuid = new Uint8Array(16).fill(0xa5);
          GPT_ENTRY.write(array, index * GPT_ENTRY.size, { ...values, partitionTypeGuid });
        }
      });
      const checkedRead = (offset: number, length: number) => {
        if (offset < 0 || offset + length > MIB) throw new RangeError('read past the end');
        return read(offset, length);
      };
      const extents = extentsOf(readPartitionTable(checkedRead, MIB));
      for (const { offset, size } of extents) {
        expect(size).to.be.above(0);
        expect(offset + size).to.be.at.most(MIB);
      }
      if (extents.length > 0) countOfValid++;
    });
    const seed = propertySeed();
    console.log(`      seed ${seed} (QCOW2FS_SEED)`);
    fc.assert(property, { seed, numRuns: 1000 });
    expect(countOfValid, 'tables that were valid').to.be.above(50);
  });

  it('is found in sectors of 4096 bytes, the backup too', function () {
    const reason = whyNo4k();
    if (reason !== '') {
      console.log(`      skipped: ${reason}`);
      this.skip();
    }
    const big = new DiskFile(128 * MIB);
    try {
      partitionIn4k(big, 'label: gpt\nsize=1024, name="a"\nstart=10000, size=5000\n');
      const table = big.table();
      expect(table).to.include({ scheme: 'gpt', sectorSize: 4096 });
      expect(table?.partitions).to.have.lengthOf(2);
      expect(fieldsOf(table)).to.deep.equal(big.partx(4096));
      big.zero(4096, 5 * 4096);
      expect(big.table()?.partitions).to.deep.equal(table?.partitions);
      expect(big.table()?.warnings).to.have.lengthOf(1);
    } finally {
      big.remove();
    }
  });
});
