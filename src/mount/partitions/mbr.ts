/**
 * The master boot record and its extended partitions, read as Linux reads them
 * (block/partitions/msdos.c). Field names are those of the UEFI specification 2.10, section 5.2.
 *
 * Tables inside of partitions (BSD, Solaris, Minix, UnixWare) are not looked at.
 */
import { bytes, struct, u8, u16, u32, type ValuesOf } from '../../codec/struct.js';
import { isExpected } from '../../errors.js';
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

const MBR_SIGNATURE = 0xaa55;
const RECORD_COUNT = 4;

const OS_TYPE_GPT_PROTECTIVE = 0xee;
/** DOS, Windows 95 (LBA), Linux. */
const EXTENDED_OS_TYPES: readonly number[] = [0x05, 0x0f, 0x85];

const FIRST_LOGICAL_NUMBER = 5;
/** How many EBRs without a partition are followed, in all; Linux counts those in a row. */
const MAX_EMPTY_EBRS = 100;

/** One of the four entries of an MBR or an EBR. */
export const PARTITION_RECORD = struct('MBR partition record', 'little', {
  bootIndicator: u8,
  startingChs: bytes(3),
  osType: u8,
  endingChs: bytes(3),
  startingLba: u32,
  sizeInLba: u32,
});

/** It lies at the start of a sector, however large that is. */
export const BOOT_RECORD = struct('MBR', 'little', {
  bootCode: bytes(440),
  uniqueMbrDiskSignature: u32,
  unknown: u16,
  partitionRecords: bytes(RECORD_COUNT * PARTITION_RECORD.size),
  signature: u16,
});

export type PartitionRecord = ValuesOf<typeof PARTITION_RECORD.fields>;

export interface BootRecord {
  readonly diskSignature: number;
  /** Always four. */
  readonly records: readonly PartitionRecord[];
}

/**
 * The MBR or EBR at a byte offset; null where the signature 55 AA is missing. Throws an
 * `ImageError` where the offset is not on the disk, and what the disk's `read` throws.
 */
export function readBootRecord(disk: TableDisk, offset: number): BootRecord | null {
  const view = dataViewOf(readWithin(disk, offset, BOOT_RECORD.size));
  if (BOOT_RECORD.get(view, 0, 'signature') !== MBR_SIGNATURE) return null;
  const records: PartitionRecord[] = [];
  for (let index = 0; index < RECORD_COUNT; index++) {
    const at = BOOT_RECORD.offsets.partitionRecords + index * PARTITION_RECORD.size;
    records.push(PARTITION_RECORD.read(view, at));
  }
  return { diskSignature: BOOT_RECORD.get(view, 0, 'uniqueMbrDiskSignature'), records };
}

/**
 * The record that makes the MBR a protective or hybrid one; null where it is neither. As in Linux
 * it may be any of the four, and only its type and its start matter.
 */
export function protectiveRecord(mbr: BootRecord): PartitionRecord | null {
  const isProtective = (record: PartitionRecord) =>
    record.osType === OS_TYPE_GPT_PROTECTIVE && record.startingLba === 1;
  return mbr.records.find(isProtective) ?? null;
}

/**
 * The table of an MBR that leads to no GPT; null where it is none. A boot sector of FAT or NTFS
 * ends in 55 AA as well, and has code, text or zeroes where the records would be.
 */
export function readMbr(disk: TableDisk, mbr: BootRecord): PartitionTable | null {
  const { records, diskSignature } = mbr;
  // Linux tells FAT from others here by its BPB, to no other end than which parser comes next.
  if (records.some(({ bootIndicator }) => bootIndicator !== 0 && bootIndicator !== 0x80)) {
    return null;
  }
  if (records.some(({ osType }) => osType === OS_TYPE_GPT_PROTECTIVE)) return null;
  const used = records.filter(({ sizeInLba }) => sizeInLba > 0);
  if (used.length === 0) return null;

  const sectorSize = sectorSizeOf(disk, used);
  const logical = new LogicalPartitions(disk, sectorSize, diskSignature);
  const partitions: Partition[] = [];
  for (const [index, record] of records.entries()) {
    if (record.sizeInLba === 0) continue;
    if (isExtended(record)) {
      logical.follow(record);
      continue;
    }
    const found = toPartition(index + 1, record, 0, sectorSize, diskSignature);
    const fitting = fitToDisk(found, disk.size, logical.warnings);
    if (fitting !== null) partitions.push(fitting);
  }
  partitions.push(...logical.partitions);
  return { scheme: 'mbr', sectorSize, partitions, warnings: logical.warnings };
}

/**
 * An MBR does not say how large its sectors are: 512 bytes, unless the first EBR of an extended
 * partition is found only by counting in 4096 and all of the records fit the disk that way.
 */
function sectorSizeOf(disk: TableDisk, records: readonly PartitionRecord[]): number {
  const extended = records.filter(isExtended);
  const leadsToEbr = (sectorSize: number) =>
    extended.some(({ startingLba }) => tryReadEbr(disk, startingLba * sectorSize, []) !== null);
  const fitsDisk = (sectorSize: number) =>
    records.every((record) => (record.startingLba + record.sizeInLba) * sectorSize <= disk.size);
  const [small, large] = SECTOR_SIZES;
  return !leadsToEbr(small) && leadsToEbr(large) && fitsDisk(large) ? large : small;
}

/** The logical partitions of a disk. Each extended partition goes on with the numbers. */
class LogicalPartitions {
  readonly partitions: Partition[] = [];
  readonly warnings: string[] = [];
  readonly #disk: TableDisk;
  readonly #sectorSize: number;
  readonly #diskSignature: number;
  readonly #visited = new Set<number>();
  #nextNumber = FIRST_LOGICAL_NUMBER;
  #emptyEbrs = 0;

  constructor(disk: TableDisk, sectorSize: number, diskSignature: number) {
    this.#disk = disk;
    this.#sectorSize = sectorSize;
    this.#diskSignature = diskSignature;
  }

  /** Follows the EBRs of an extended partition: a link counts from its start, not from the EBR. */
  follow(extended: PartitionRecord): void {
    let ebrLba = extended.startingLba;
    let ebrSize = extended.sizeInLba;
    while (this.#nextNumber <= LAST_PARTITION_NUMBER) {
      // Linux has no such check, and shows the same partitions again until their numbers run out.
      if (this.#visited.has(ebrLba)) {
        this.warnings.push(`the EBR at LBA ${ebrLba} is linked to twice: the chain is cut there`);
        return;
      }
      this.#visited.add(ebrLba);
      const ebr = tryReadEbr(this.#disk, ebrLba * this.#sectorSize, this.warnings);
      if (ebr === null) return;

      const countBefore = this.#nextNumber;
      this.#addPartitions(ebr, ebrLba, ebrSize, extended);
      if (this.#nextNumber === countBefore) this.#emptyEbrs++;
      const link = ebr.records.find((record) => record.sizeInLba > 0 && isExtended(record));
      if (link === undefined) return;
      if (this.#emptyEbrs >= MAX_EMPTY_EBRS) {
        this.warnings.push(`${MAX_EMPTY_EBRS} EBRs hold no partition: the chain is cut there`);
        return;
      }
      ebrLba = extended.startingLba + link.startingLba;
      ebrSize = link.sizeInLba;
    }
    this.warnings.push(`logical partitions past number ${LAST_PARTITION_NUMBER} are left out`);
  }

  #addPartitions(
    ebr: BootRecord,
    ebrLba: number,
    ebrSize: number,
    extended: PartitionRecord,
  ): void {
    const extendedEnd = extended.startingLba + extended.sizeInLba;
    for (const [index, record] of ebr.records.entries()) {
      if (record.sizeInLba === 0 || isExtended(record)) continue;
      if (this.#nextNumber > LAST_PARTITION_NUMBER) return;
      // The third and the fourth record are in use by OS/2 only; others leave garbage there.
      const end = record.startingLba + record.sizeInLba;
      if (index >= 2 && (end > ebrSize || ebrLba + end > extendedEnd)) continue;

      // One that is left out keeps its number, as in Linux.
      const number = this.#nextNumber++;
      const found = toPartition(number, record, ebrLba, this.#sectorSize, this.#diskSignature);
      const fitting = fitToDisk(found, this.#disk.size, this.warnings);
      if (fitting !== null) this.partitions.push(fitting);
    }
  }
}

/** The EBR at a byte offset; null, and a warning, where it cannot be read or is none. */
function tryReadEbr(disk: TableDisk, offset: number, warnings: string[]): BootRecord | null {
  let reason = 'no signature 55 AA';
  try {
    const ebr = readBootRecord(disk, offset);
    if (ebr !== null) return ebr;
  } catch (error) {
    if (!isExpected(error)) throw error;
    reason = error.message;
  }
  warnings.push(`the EBR at byte ${offset} cannot be read (${reason}): the chain is cut there`);
  return null;
}

function isExtended(record: PartitionRecord): boolean {
  return EXTENDED_OS_TYPES.includes(record.osType);
}

/** `baseLba` is the LBA from which the record counts: 0 in the MBR, its own in an EBR. */
function toPartition(
  number: number,
  record: PartitionRecord,
  baseLba: number,
  sectorSize: number,
  diskSignature: number,
): Partition {
  const partition: Partition = {
    number,
    offset: (baseLba + record.startingLba) * sectorSize,
    size: record.sizeInLba * sectorSize,
    type: `0x${hex(record.osType, 2)}`,
    name: '',
    bootable: record.bootIndicator === 0x80,
  };
  if (diskSignature === 0) return partition;
  return { ...partition, uuid: `${hex(diskSignature, 8)}-${hex(number, 2)}` };
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
