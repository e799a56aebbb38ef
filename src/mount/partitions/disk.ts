/** What the readers of partition tables share: the disk they read and the partitions they find. */
import { ImageError } from '../../errors.js';

/** Sizes of logical blocks, in the order in which they are tried. */
export const SECTOR_SIZES = [512, 4096] as const;

/** Linux has 256 minors for a disk, the whole disk's among them: it shows no more, of any table. */
export const LAST_PARTITION_NUMBER = 255;

export interface Partition {
  /** As Linux numbers it: MBR primary 1 to 4, logical from 5; GPT entry index + 1. */
  readonly number: number;
  /** Bytes from the disk's start. */
  readonly offset: number;
  /** Bytes, above zero; the partition ends within the disk. */
  readonly size: number;
  /** GPT: the type's GUID in lower case. MBR: its type byte, as `0x83`. */
  readonly type: string;
  /** The GPT name as it is on disk: any character, `/` too. Empty for MBR. */
  readonly name: string;
  /** What Linux calls PARTUUID, in lower case. Absent where an MBR has no disk signature. */
  readonly uuid?: string;
  /** MBR: active. GPT: the attribute "legacy BIOS bootable". */
  readonly bootable?: boolean;
}

export interface PartitionTable {
  readonly scheme: 'mbr' | 'gpt';
  /** Bytes of a logical block, in which the table counts: 512 or 4096. */
  readonly sectorSize: number;
  /** In the order of their numbers; they may overlap, as they may in Linux. */
  readonly partitions: readonly Partition[];
  /** For the user: what is wrong with the table, and what was left out because of it. */
  readonly warnings: readonly string[];
}

/**
 * Reads `length` bytes at `offset`. Called within the disk's size only; may throw on I/O errors,
 * and may hand out the same buffer each time.
 */
export type ReadDisk = (offset: number, length: number) => Uint8Array | Buffer;

/** A disk whose table is looked for. `size` in bytes. */
export interface TableDisk {
  readonly read: ReadDisk;
  readonly size: number;
}

/** Reads a place that the disk itself names. Throws an `ImageError` where it is not on the disk. */
export function readWithin(disk: TableDisk, offset: number, length: number): Uint8Array {
  if (!(offset >= 0 && offset + length <= disk.size)) {
    throw new ImageError('corrupt', 'EIO', `byte ${offset} is past the end`, { offset });
  }
  return disk.read(offset, length);
}

export function dataViewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

/**
 * The partition cut to the disk, as Linux does it; null where nothing of it is on the disk. Either
 * is told in `warnings`. `found` need not hold exact numbers: those past 2^53 are past the disk.
 */
export function fitToDisk(
  found: Partition,
  diskSize: number,
  warnings: string[],
): Partition | null {
  const { number, offset, size } = found;
  if (!(size > 0)) {
    warnings.push(`partition ${number} ends before it starts: left out`);
    return null;
  }
  if (offset >= diskSize) {
    warnings.push(`partition ${number} starts past the end of the disk: left out`);
    return null;
  }
  if (offset + size > diskSize) {
    warnings.push(`partition ${number} reaches past the end of the disk: cut`);
    return { ...found, size: diskSize - offset };
  }
  return found;
}
