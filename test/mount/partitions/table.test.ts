import { expect } from 'chai';
import fc from 'fast-check';
import { readPartitionTable } from '#src/mount/partitions/table.js';
import { DiskFile, MIB, propertySeed, run } from './disk-file.js';

const SECTOR = 512;

describe('readPartitionTable()', () => {
  it('finds none on an empty disk, or on one too small for a sector', () => {
    expect(readPartitionTable((_offset, length) => Buffer.alloc(length), MIB)).to.equal(null);
    const never = () => {
      throw new Error('read from an empty disk');
    };
    expect(readPartitionTable(never, 0)).to.equal(null);
    expect(readPartitionTable(never, 511)).to.equal(null);
  });

  const filesystems: [string, string[]][] = [
    ['mkfs.vfat', ['-F', '32', '-I']],
    ['mkfs.vfat', ['-F', '16', '-I']],
    ['mkfs.ext4', ['-q', '-F']],
    ['mkfs.xfs', ['-q', '-f']],
  ];
  for (const [program, options] of filesystems) {
    it(`finds none where ${[program, ...options].join(' ')} took the whole disk`, () => {
      const disk = new DiskFile(320 * MIB);
      try {
        run(program, [...options, disk.path]);
        expect(disk.table()).to.equal(null);
      } finally {
        disk.remove();
      }
    });
  }

  it('ends quickly on garbage, without a throw, with partitions that lie on the disk', () => {
    const sectorCount = 24;
    const small = fc.oneof(
      fc.nat(sectorCount + 2),
      fc.constantFrom(0xffffffff, 0x7fffffff, 0x80000000, 2048),
    );
    const record = fc.record({
      boot: fc.constantFrom(0, 0, 0, 0x80, 0x41),
      osType: fc.constantFrom(0x83, 0x05, 0x0f, 0x85, 0xee, 0, 7),
      start: small,
      size: small,
    });
    const sector = fc.record({
      noise: fc.uint8Array({ minLength: SECTOR, maxLength: SECTOR }),
      records: fc.array(record, { minLength: 4, maxLength: 4 }),
      kind: fc.constantFrom('noise', 'boot', 'boot', 'gpt'),
    });
    const garbage = fc.tuple(
      fc.array(sector, { minLength: 1, maxLength: sectorCount }),
      fc.integer({ min: 0, max: SECTOR - 1 }),
    );
    const property = fc.property(garbage, ([sectors, tail]) => {
      const image = Buffer.concat([...sectors.map(toBytes), Buffer.alloc(tail)]);
      let readCount = 0;
      const read = (offset: number, length: number) => {
        if (offset < 0 || length > MIB || offset + length > image.length) throw new RangeError();
        if (++readCount > 1000) throw new RangeError('too many reads');
        return image.subarray(offset, offset + length);
      };
      const table = readPartitionTable(read, image.length);
      const numbers = new Set<number>();
      for (const { number, offset, size } of table?.partitions ?? []) {
        expect(offset).to.be.at.least(0);
        expect(size).to.be.above(0);
        expect(offset + size).to.be.at.most(image.length);
        expect(numbers.has(number)).to.equal(false);
        numbers.add(number);
      }
    });
    const seed = propertySeed();
    console.log(`      seed ${seed} (QCOW2FS_SEED)`);
    fc.assert(property, { seed, numRuns: 3000 });
  });
});

interface Garbage {
  readonly noise: Uint8Array;
  readonly records: { boot: number; osType: number; start: number; size: number }[];
  readonly kind: string;
}

/** A sector of noise, made to look like a boot record or like a GPT header. */
function toBytes({ noise, records, kind }: Garbage): Buffer {
  const bytes = Buffer.from(noise);
  if (kind === 'gpt') {
    bytes.write('EFI PART', 0, 'latin1');
    bytes.writeUInt32LE(0x0001_0000, 8);
    bytes.writeUInt32LE(92, 12);
  }
  if (kind !== 'boot') return bytes;
  for (const [index, { boot, osType, start, size }] of records.entries()) {
    const at = 446 + 16 * index;
    bytes[at] = boot;
    bytes[at + 4] = osType;
    bytes.writeUInt32LE(start, at + 8);
    bytes.writeUInt32LE(size, at + 12);
  }
  bytes.writeUInt16LE(0xaa55, 510);
  return bytes;
}
