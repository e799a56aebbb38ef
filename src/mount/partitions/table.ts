/** The partition table of a disk, of whatever kind, as Linux would find it. */
import type { PartitionTable, ReadDisk } from './disk.js';
import { readGpt } from './gpt.js';
import { BOOT_RECORD, protectiveRecord, readBootRecord, readMbr } from './mbr.js';

export type { Partition, PartitionTable, ReadDisk } from './disk.js';

/**
 * The partition table of a disk of `diskSize` bytes; null where the disk has none, be it empty or
 * a filesystem as a whole. An extended partition is not in the list, only those inside of it.
 *
 * Bytes off the disk decide nothing unchecked: at most 1 MiB is read at a time, and at most 351
 * EBRs. Damage becomes a warning, and so do I/O errors behind the first sector; one in the first
 * sector is thrown as `read` throws it.
 */
export function readPartitionTable(read: ReadDisk, diskSize: number): PartitionTable | null {
  if (diskSize < BOOT_RECORD.size) return null;
  const disk = { read, size: diskSize };
  const mbr = readBootRecord(disk, 0);
  if (mbr === null) return null;
  const protective = protectiveRecord(mbr);
  if (protective === null) return readMbr(disk, mbr);
  return readGpt(disk, protective.startingLba + protective.sizeInLba - 1);
}
