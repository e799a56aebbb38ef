/**
 * The GUID partition table (UEFI specification 2.10, section 5.3), checked as Linux checks it
 * (block/partitions/efi.c). Unlike Linux, which asks for the boot option `gpt` first, a backup
 * header is used wherever the primary one is damaged.
 */
import crc32 from 'crc-32';
import { bits64, bytes, struct, u32, u64, type ValuesOf } from '../../codec/struct.js';
import { ImageError, isExpected } from '../../errors.js';
import {
  dataViewOf,
  fitToDisk,
  LAST_PARTITION_NUMBER,
  type Partition,
  type PartitionTable,
  readWithin,
  SECTOR_SIZES,
  type TableDisk,
} from './disk.js';

const PRIMARY_LBA = 1;
const SIGNATURE = 'EFI PART';
const MAJOR_REVISION = 1;
/** 8192 entries of the usual size; the tools write 128. */
const MAX_ENTRY_ARRAY_SIZE = 1 << 20;
const LEGACY_BIOS_BOOTABLE = 1n << 2n;

export const GPT_HEADER = struct('GPT header', 'little', {
  signature: bytes(8),
  revision: u32,
  headerSize: u32,
  headerCrc32: u32,
  reserved: u32,
  myLba: u64,
  alternateLba: u64,
  firstUsableLba: u64,
  lastUsableLba: u64,
  diskGuid: bytes(16),
  partitionEntryLba: u64,
  numberOfPartitionEntries: u32,
  sizeOfPartitionEntry: u32,
  partitionEntryArrayCrc32: u32,
});

export const GPT_ENTRY = struct('GPT partition entry', 'little', {
  partitionTypeGuid: bytes(16),
  uniquePartitionGuid: bytes(16),
  startingLba: u64,
  endingLba: u64,
  attributes: bits64,
  partitionName: bytes(72),
});

type GptHeader = ValuesOf<typeof GPT_HEADER.fields>;

const utf16 = new TextDecoder('utf-16le', { ignoreBOM: true });

/**
 * The GPT of a disk whose MBR is protective: the first that is valid of the primaries (512, then
 * 4096 bytes a sector) and of the backups. A backup comes after both primaries, since one for 512
 * may outlive the table that it belonged to.
 *
 * `protectiveLast` is the LBA at which the protective record ends. With no valid GPT the table is
 * an empty one, with the reasons as its warnings. Errors of the disk's `read` become warnings.
 */
export function readGpt(disk: TableDisk, protectiveLast: number): PartitionTable {
  const damage = new Map<number, string>();
  for (const sectorSize of SECTOR_SIZES) {
    const table = attempt(disk, sectorSize, PRIMARY_LBA);
    if (typeof table !== 'string') return table;
    damage.set(sectorSize, table);
  }
  for (const sectorSize of SECTOR_SIZES) {
    for (const lba of backupLbas(disk, sectorSize, protectiveLast)) {
      const table = attempt(disk, sectorSize, lba);
      if (typeof table === 'string') continue;
      const why = `the primary GPT at LBA 1 is damaged (${damage.get(sectorSize)})`;
      const what = `the backup at LBA ${lba} is used`;
      return { ...table, warnings: [`${why}: ${what}`, ...table.warnings] };
    }
  }
  const reasons = [...damage].map(([size, why]) => `with sectors of ${size} bytes: ${why}`);
  const warning = `the MBR is protective, but no GPT is valid (${reasons.join('; ')})`;
  return { scheme: 'gpt', sectorSize: SECTOR_SIZES[0], partitions: [], warnings: [warning] };
}

/** The table whose header is at `lba`, or why there is none. */
function attempt(disk: TableDisk, sectorSize: number, lba: number): PartitionTable | string {
  try {
    const header = readHeader(disk, sectorSize, lba);
    checkHeader(header, lba, lastLba(disk, sectorSize));
    return readEntries(disk, sectorSize, header);
  } catch (error) {
    if (!isExpected(error)) throw error;
    return error.message;
  }
}

/**
 * Where a backup may be: where the primary header says, however damaged that is; in the disk's
 * last sector; where the protective record ends (the last sector before the disk was grown).
 */
function backupLbas(disk: TableDisk, sectorSize: number, protectiveLast: number): Set<number> {
  const last = lastLba(disk, sectorSize);
  const candidates = [last, protectiveLast];
  try {
    const view = dataViewOf(readWithin(disk, PRIMARY_LBA * sectorSize, GPT_HEADER.size));
    const primary = GPT_HEADER.read(view, 0);
    if (hasSignature(primary)) candidates.unshift(primary.alternateLba);
  } catch (error) {
    if (!isExpected(error)) throw error;
  }
  return new Set(candidates.filter((lba) => lba > PRIMARY_LBA && lba <= last));
}

function lastLba(disk: TableDisk, sectorSize: number): number {
  return Math.floor(disk.size / sectorSize) - 1;
}

function hasSignature(header: GptHeader): boolean {
  return Buffer.from(header.signature).toString('latin1') === SIGNATURE;
}

/** The header at `lba`, with its signature, size and CRC32 checked. */
function readHeader(disk: TableDisk, sectorSize: number, lba: number): GptHeader {
  // A copy: its CRC32 field is to become zero, and the disk's buffer is not ours.
  const sector = new Uint8Array(readWithin(disk, lba * sectorSize, sectorSize));
  const view = dataViewOf(sector);
  const header = GPT_HEADER.read(view, 0);
  check(hasSignature(header), `the header has no signature "${SIGNATURE}"`);
  check(header.revision >>> 16 === MAJOR_REVISION, 'the revision is not known');
  const { headerSize } = header;
  check(headerSize >= GPT_HEADER.size && headerSize <= sectorSize, 'the header size is wrong');
  GPT_HEADER.set(view, 0, 'headerCrc32', 0);
  const crc = crc32Of(sector.subarray(0, headerSize));
  check(crc === header.headerCrc32, 'the header has a wrong CRC32');
  return header;
}

function checkHeader(header: GptHeader, lba: number, last: number): void {
  check(header.myLba === lba, 'the header is made for another LBA');
  check(header.firstUsableLba <= last, 'the first usable LBA is past the end of the disk');
  check(header.lastUsableLba <= last, 'the last usable LBA is past the end of the disk');
  check(
    header.firstUsableLba <= header.lastUsableLba,
    'the last usable LBA is before the first one',
  );
  const entrySize = header.sizeOfPartitionEntry;
  // 128 * 2^n; the AND is exact, for both are 32 bits.
  const isPowerOf2 = (entrySize & (entrySize - 1)) === 0;
  check(entrySize >= GPT_ENTRY.size && isPowerOf2, 'the partition entry size is wrong');
  const arraySize = header.numberOfPartitionEntries * entrySize;
  check(arraySize > 0, 'there are no partition entries');
  check(arraySize <= MAX_ENTRY_ARRAY_SIZE, 'the partition entries exceed 1 MiB');
}

/** The table of a checked header. Throws where its entries are not as their CRC32 says. */
function readEntries(disk: TableDisk, sectorSize: number, header: GptHeader): PartitionTable {
  const { numberOfPartitionEntries, sizeOfPartitionEntry } = header;
  const arraySize = numberOfPartitionEntries * sizeOfPartitionEntry;
  const array = readWithin(disk, header.partitionEntryLba * sectorSize, arraySize);
  const crc = crc32Of(array);
  check(crc === header.partitionEntryArrayCrc32, 'the partition entries have a wrong CRC32');

  const view = dataViewOf(array);
  const partitions: Partition[] = [];
  const warnings: string[] = [];
  for (let index = 0; index < numberOfPartitionEntries; index++) {
    const at = index * sizeOfPartitionEntry;
    // Before all else is read: most entries are unused.
    if (isUnused(view, at)) continue;
    const number = index + 1;
    if (number > LAST_PARTITION_NUMBER) {
      warnings.push(`partitions past number ${LAST_PARTITION_NUMBER} are left out`);
      break;
    }
    const entry = GPT_ENTRY.read(view, at);
    const found: Partition = {
      number,
      offset: entry.startingLba * sectorSize,
      size: (entry.endingLba - entry.startingLba + 1) * sectorSize,
      type: guidText(entry.partitionTypeGuid),
      name: utf16.decode(entry.partitionName).split('\0', 1)[0]!,
      uuid: guidText(entry.uniquePartitionGuid),
      bootable: (entry.attributes & LEGACY_BIOS_BOOTABLE) !== 0n,
    };
    const fitting = fitToDisk(found, disk.size, warnings);
    if (fitting !== null) partitions.push(fitting);
  }
  return { scheme: 'gpt', sectorSize, partitions, warnings };
}

/** Whether the entry's type GUID, its first 16 bytes, is the null one. */
function isUnused(view: DataView, at: number): boolean {
  return [0, 4, 8, 12].every((offset) => view.getUint32(at + offset) === 0);
}

/** A GUID as text, in lower case. Its first three parts are little-endian on disk. */
function guidText(guid: Uint8Array): string {
  const hex = (from: number, to: number) => Buffer.from(guid.subarray(from, to)).toString('hex');
  const swapped = (from: number, to: number) =>
    Buffer.from(guid.subarray(from, to)).reverse().toString('hex');
  return [swapped(0, 4), swapped(4, 6), swapped(6, 8), hex(8, 10), hex(10, 16)].join('-');
}

/** The package's result is signed; the table's is not. */
function crc32Of(data: Uint8Array): number {
  return crc32.buf(data) >>> 0;
}

function check(isRight: boolean, wrong: string): void {
  if (!isRight) throw new ImageError('corrupt', 'EIO', wrong);
}
