import { constants } from 'node:os';
import { expect } from 'chai';
import { ImageError, SysError } from '#src/errors.js';
import { PartitionTables } from '#src/mount/partition-tables.js';
import type { IoBuffer } from '#src/sys/io-buffer.js';

/** A disk with one logical partition; `fail` is asked before each read. */
function tablesOver(fail: (offset: number) => void) {
  const bytes = Buffer.alloc(1 << 16);
  const record = (at: number, type: number, start: number, size: number) => {
    bytes[at + 446 + 4] = type;
    bytes.writeUInt32LE(start, at + 446 + 8);
    bytes.writeUInt32LE(size, at + 446 + 12);
    bytes.writeUInt16LE(0xaa55, at + 510);
  };
  record(0, 0x05, 8, 32);
  record(8 * 512, 0x83, 1, 16);
  const warnings: string[] = [];
  let reads = 0;
  const disk = {
    size: bytes.length,
    read(offset: number, length: number, target: IoBuffer, at: number) {
      reads++;
      fail(offset);
      target.bytes.set(bytes.subarray(offset, offset + length), at);
    },
  };
  const tables = new PartitionTables({
    disk: () => disk,
    warn: (view, message) => warnings.push(`${view}: ${message}`),
  });
  return { tables, warnings, reads: () => reads };
}

const eio = () => new SysError('pread', constants.errno.EIO);

describe('PartitionTables', () => {
  it('keeps what it read', () => {
    const { tables, reads } = tablesOver(() => {});
    expect(tables.get(0)!.partitions).to.have.lengthOf(1);
    const before = reads();
    expect(tables.get(0)!.partitions).to.have.lengthOf(1);
    expect(reads()).to.equal(before);
  });

  it('tries again after the system failed in the first sector', () => {
    let failing = true;
    const { tables, warnings } = tablesOver(() => {
      if (failing) throw eio();
    });
    expect(() => tables.get(0)).to.throw(SysError, /EIO/);
    expect(tables.tryGet(0)).to.equal(undefined);
    expect(warnings[0]).to.match(/^0: it cannot be read: pread: EIO/);
    failing = false;
    expect(tables.get(0)!.partitions).to.have.lengthOf(1);
  });

  it('tries again after the system failed behind the first sector', () => {
    let failing = true;
    const { tables, warnings } = tablesOver((offset) => {
      if (failing && offset > 0) throw eio();
    });
    expect(tables.get(0)!.partitions).to.have.lengthOf(0);
    expect(warnings.join()).to.match(/EBR.*EIO/);
    failing = false;
    expect(tables.get(0)!.partitions).to.have.lengthOf(1);
  });

  it('takes damage of the image for lasting, and tells of it', () => {
    const { tables, warnings, reads } = tablesOver(() => {
      throw new ImageError('corrupt', 'EIO', 'broken');
    });
    expect(tables.get(3)).to.equal(null);
    expect(tables.get(3)).to.equal(null);
    expect(reads()).to.equal(1);
    expect(warnings).to.deep.equal(['3: it cannot be read: broken']);
  });

  it('does not hide a bug', () => {
    const { tables } = tablesOver(() => {
      throw new TypeError('a bug');
    });
    expect(() => tables.get(0)).to.throw(TypeError, 'a bug');
    expect(() => tables.tryGet(0)).to.throw(TypeError, 'a bug');
  });
});
