/** VHDX images whose log was not written to its places: they read as once QEMU has replayed it. */
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { crc32c } from '#src/codec/crc32c.js';
import { openImage } from '#src/image/open.js';
import { expectImageError } from '../helpers/errors.js';
import { qemuImg, qemuIo, qemuRead } from '../helpers/qemu.js';
import { readImage, withImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';
import { logEntry, moveToLog, SECTOR } from '../helpers/vhdx-images.js';

const MIB = 1 << 20;
describe('VHDX logs', () => {
  const temp = useTempFolder();

  /** An image of which `log` is not written yet, given its table's place and what stands there. */
  function logged(
    log: (table: number, sector: Buffer, size: number) => readonly [number, Buffer][],
  ): {
    path: string;
    disk: Buffer;
  } {
    const path = temp.at('image.vhdx');
    qemuImg('create', '-q', '-f', 'vhdx', '-o', 'block_size=1M,log_size=1M', path, '4M');
    qemuIo(path, 'write -P 1 0 1M', 'write -P 2 2M 5k');
    const disk = qemuRead(path);
    const bytes = readFileSync(path);
    moveToLog(bytes, log);
    writeFileSync(path, bytes);
    return { path, disk };
  }

  it('are laid over the file in memory: the same disk as QEMU makes by replaying them', () => {
    const { path, disk } = logged((table, sector, size) => [
      [
        8 * SECTOR,
        logEntry(5, 8 * SECTOR, size, [{ position: table + SECTOR }, { position: table, sector }]),
      ],
    ]);
    const before = readFileSync(path);
    expect(readImage(path).equals(disk)).to.equal(true);
    withImage(path, ({ warnings }) => expect(warnings.join()).to.match(/not closed cleanly/));
    expect(readFileSync(path).equals(before)).to.equal(true);
    const copy = temp.at('replayed.vhdx');
    copyFileSync(path, copy);
    qemuImg('check', '-r', 'all', copy);
    expect(readImage(path).equals(qemuRead(copy))).to.equal(true);
  });

  it('of several entries, over the end of the ring: the newest that hang together', () => {
    const start = MIB - SECTOR;
    const { path, disk } = logged((table, sector, size) => [
      // A stale one, then two that belong together: the later one lies over the earlier one.
      [16 * SECTOR, logEntry(2, 16 * SECTOR, size, [{ position: table }])],
      [start, logEntry(8, start, size, [{ position: table, sector: Buffer.alloc(SECTOR, 0xff) }])],
      [SECTOR, logEntry(9, start, size, [{ position: table, sector }])],
    ]);
    expect(readImage(path).equals(disk)).to.equal(true);
  });

  it('whose newest entries follow a torn one: what is whole before that counts, as the specification has it', () => {
    const { path, disk } = logged((table, sector, size) => {
      const wrong = { position: table, sector: Buffer.alloc(SECTOR, 0xff) };
      const torn = logEntry(6, 0, size, [wrong]);
      torn.fill(0, SECTOR);
      return [
        [0, logEntry(5, 0, size, [{ position: table, sector }])],
        [2 * SECTOR, torn],
        [4 * SECTOR, logEntry(7, 0, size, [wrong])],
      ];
    });
    expect(readImage(path).equals(disk)).to.equal(true);
  });

  it('that are damaged are no log, as for QEMU, or a clear error', () => {
    const path = temp.at('image.vhdx');
    const broken = (change: (raw: Buffer) => void) =>
      logged((table, sector, size) => {
        const raw = logEntry(5, 0, size, [{ position: table, sector }]);
        change(raw);
        return [[0, raw]];
      });
    const summed = (change: (raw: Buffer) => void) =>
      broken((raw) => {
        change(raw);
        raw.writeUInt32LE(0, 4);
        raw.writeUInt32LE(crc32c(raw), 4);
      });
    broken((raw) => raw.writeUInt8(1, SECTOR + 100));
    withImage(path, ({ warnings }) => expect(warnings).to.deep.equal([]));
    summed((raw) => raw.writeBigUInt64LE(1n << 40n, 48));
    expectImageError('EINVAL', /truncated: its log tells of 1099511627776 bytes/, () =>
      openImage(path),
    );
    summed((raw) => raw.writeBigUInt64LE(3n, 64 + 16));
    expectImageError('EINVAL', /log is damaged: descriptor at byte 64/, () => openImage(path));
    summed((raw) => raw.write('datX', SECTOR));
    expectImageError('EINVAL', /log is damaged/, () => openImage(path));
    summed((raw) => raw.writeUInt32LE(4 * SECTOR, 12));
    expectImageError('EINVAL', /lost its start/, () => openImage(path));
    summed((raw) => raw.writeUInt32LE(100_000, 24));
    withImage(path, ({ warnings }) => expect(warnings).to.deep.equal([]));
  });
});
