import { expect } from 'chai';
import { BOOT_RECORD, PARTITION_RECORD } from '#src/mount/partitions/mbr.js';
import { DiskFile, extentsOf, fieldsOf, MIB, partitionIn4k, whyNo4k } from './disk-file.js';

const RECORDS = 446;

/** One record of an MBR or EBR, of type 0x83 if not told otherwise. */
function record(startingLba: number, sizeInLba: number, osType = 0x83): Buffer {
  const buffer = Buffer.alloc(PARTITION_RECORD.size);
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  PARTITION_RECORD.write(view, 0, { osType, startingLba, sizeInLba });
  return buffer;
}

function bootRecord(...records: Buffer[]): Buffer {
  const buffer = Buffer.alloc(BOOT_RECORD.size);
  Buffer.concat(records).copy(buffer, RECORDS);
  buffer.writeUInt16LE(0xaa55, 510);
  return buffer;
}

describe('MBR', () => {
  let disk: DiskFile;
  beforeEach(() => {
    disk = new DiskFile(64 * MIB);
  });
  afterEach(() => disk.remove());

  it('has the layout of the UEFI specification', () => {
    expect(PARTITION_RECORD.size).to.equal(16);
    expect(PARTITION_RECORD.offsets).to.include({ osType: 4, startingLba: 8, sizeInLba: 12 });
    expect(BOOT_RECORD.size).to.equal(512);
    expect(BOOT_RECORD.offsets).to.include({
      uniqueMbrDiskSignature: 440,
      partitionRecords: RECORDS,
      signature: 510,
    });
  });

  it('shows primary partitions with gaps as sfdisk and libblkid do', () => {
    disk.sfdisk(
      'label: dos\nlabel-id: 0x1234abcd\n' +
        '1: start=2048, size=4096, type=c, bootable\n3: start=20480, size=2048\n',
    );
    const table = disk.table();
    expect(table).to.include({ scheme: 'mbr', sectorSize: 512 });
    expect(table?.warnings).to.deep.equal([]);
    expect(extentsOf(table)).to.deep.equal(disk.sfdiskExtents());
    expect(fieldsOf(table)).to.deep.equal(disk.partx());
    expect(extentsOf(table).map(({ number }) => number)).to.deep.equal([1, 3]);
    expect(table?.partitions[0]).to.deep.equal({
      number: 1,
      offset: MIB,
      size: 2 * MIB,
      type: '0x0c',
      name: '',
      uuid: '1234abcd-01',
      bootable: true,
    });
    expect(table?.partitions[1]).to.include({ type: '0x83', bootable: false });
  });

  it('shows logical partitions as sfdisk and libblkid do, the extended one left out', () => {
    const logical = [6144, 12288, 20480, 32768].map((start) => `start=${start}, size=2048\n`);
    for (const type of ['5', 'f', '85']) {
      disk.sfdisk(
        `label: dos\nstart=2048, size=2048\nstart=4096, size=60000, type=${type}\n` +
          `start=70000, size=1000\nstart=72000, size=999\n${logical.join('')}`,
      );
      const table = disk.table();
      expect(extentsOf(table)).to.deep.equal(disk.sfdiskExtents());
      expect(extentsOf(table).map(({ number }) => number)).to.deep.equal([1, 3, 4, 5, 6, 7, 8]);
      expect(fieldsOf(table)).to.deep.equal(disk.partx());
      expect(table?.warnings).to.deep.equal([]);
    }
  });

  it('follows a chain in which a logical partition was deleted', () => {
    const logical = [6144, 12288, 20480].map((start) => `start=${start}, size=2048\n`);
    const extended = 'label: dos\n1: start=4096, size=60000, type=5\n';
    disk.sfdisk(`${extended}5: ${logical[0]}6: ${logical[1]}7: ${logical[2]}`);
    // The first EBR keeps its place in the chain, without a partition.
    disk.zero(4096 * 512 + RECORDS, 16);
    const extents = extentsOf(disk.table());
    expect(extents).to.deep.equal([
      { number: 5, offset: 12288 * 512, size: MIB },
      { number: 6, offset: 20480 * 512, size: MIB },
    ]);
    expect(extents).to.deep.equal(
      disk.partx().map(({ number, offset, size }) => ({ number, offset, size })),
    );
  });

  it('cuts a chain of EBRs that leads back into itself', () => {
    disk.write(0, bootRecord(record(100, 1000, 5)));
    disk.write(100 * 512, bootRecord(record(1, 10), record(50, 50, 5)));
    disk.write(150 * 512, bootRecord(record(2, 20), record(0, 50, 5)));
    const table = disk.table();
    expect(extentsOf(table)).to.deep.equal([
      { number: 5, offset: 101 * 512, size: 10 * 512 },
      { number: 6, offset: 152 * 512, size: 20 * 512 },
    ]);
    expect(table?.warnings).to.have.lengthOf(1);
    expect(table?.warnings[0]).to.match(/LBA 100 is linked to twice/);
  });

  it('gives up on a long chain of EBRs, empty or not', () => {
    for (const [inner, expected] of [
      [record(0, 0), 0],
      [record(0, 1), 251],
    ] as const) {
      disk.write(0, bootRecord(record(100, 10_000, 5)));
      for (let index = 0; index < 1000; index++) {
        disk.write((100 + index) * 512, bootRecord(inner, record(index + 1, 1, 5)));
      }
      const table = disk.table();
      expect(table?.partitions).to.have.lengthOf(expected);
      expect(table?.warnings).to.have.lengthOf(1);
    }
  });

  it('takes the third and fourth record of an EBR only where they lie within it', () => {
    const inside = record(60, 5);
    disk.write(0, bootRecord(record(100, 1000, 5)));
    disk.write(100 * 512, bootRecord(record(1, 10), record(0, 0), inside, record(990, 20)));
    expect(extentsOf(disk.table())).to.deep.equal([
      { number: 5, offset: 101 * 512, size: 10 * 512 },
      { number: 6, offset: 160 * 512, size: 5 * 512 },
    ]);
  });

  it('keeps the numbers going from one extended partition to the next', () => {
    disk.write(0, bootRecord(record(100, 100, 5), record(300, 100, 0xf)));
    disk.write(100 * 512, bootRecord(record(1, 10)));
    disk.write(300 * 512, bootRecord(record(1, 20)));
    expect(extentsOf(disk.table())).to.deep.equal([
      { number: 5, offset: 101 * 512, size: 10 * 512 },
      { number: 6, offset: 301 * 512, size: 20 * 512 },
    ]);
  });

  it('cuts or leaves out what is past the end of the disk, and says so', () => {
    disk.sfdisk(
      'label: dos\nstart=2048, size=4096\nstart=20480, size=8192\nstart=40960, size=8192\n',
    );
    disk.resize(11 * MIB);
    const table = disk.table();
    expect(extentsOf(table)).to.deep.equal([
      { number: 1, offset: MIB, size: 2 * MIB },
      { number: 2, offset: 10 * MIB, size: MIB },
    ]);
    expect(table?.warnings).to.deep.equal([
      'partition 2 reaches past the end of the disk: cut',
      'partition 3 starts past the end of the disk: left out',
    ]);
  });

  it('keeps the primary partitions where the extended one is damaged', () => {
    disk.write(0, bootRecord(record(10, 10), record(100, 100, 5), record(2 ** 31, 5, 5)));
    const table = disk.table();
    expect(extentsOf(table)).to.deep.equal([{ number: 1, offset: 5120, size: 5120 }]);
    expect(table?.warnings).to.have.lengthOf(2);
    expect(table?.warnings[0]).to.match(/no signature/);
    expect(table?.warnings[1]).to.match(/past the end/);
  });

  it('is not what a sector with other boot indicators holds, or with no partitions', () => {
    const sector = bootRecord(record(10, 10), record(30, 10));
    sector[RECORDS + 16] = 0x41;
    disk.write(0, sector);
    expect(disk.table()).to.equal(null);
    disk.write(0, bootRecord());
    expect(disk.table()).to.equal(null);
  });

  it('counts in 4096 bytes where only that leads to an EBR', function () {
    const reason = whyNo4k();
    if (reason !== '') {
      console.log(`      skipped: ${reason}`);
      this.skip();
    }
    const big = new DiskFile(256 * MIB);
    try {
      partitionIn4k(
        big,
        'label: dos\nstart=256, size=4096\nstart=8192, size=8192, type=5\n' +
          'start=20480, size=1024\nstart=40000, size=1000\n' +
          'start=8500, size=1024\nstart=10300, size=1000\n',
      );
      const table = big.table();
      expect(table?.sectorSize).to.equal(4096);
      expect(table?.partitions).to.have.lengthOf(5);
      expect(fieldsOf(table)).to.deep.equal(big.partx(4096));
    } finally {
      big.remove();
    }
  });
});
