/** VHDX images whose log holds what their tables do not, and checksums that fit what was changed. */
import { crc32c } from '#src/codec/crc32c.js';

export const SECTOR = 4096;
const MIB = 1 << 20;
const GUID = Buffer.alloc(16, 7);
const HEADERS = [64 << 10, 128 << 10];
const REGIONS = [192 << 10, 256 << 10];
const REGIONS_SIZE = 64 << 10;

export interface Change {
  readonly position: number;
  /** The sector as it is to be; zeroes where it is not given. */
  readonly sector?: Buffer;
}

/** One entry of a log, of at most 126 changes. */
export function logEntry(
  sequence: number,
  tail: number,
  size: number,
  changes: readonly Change[],
): Buffer {
  const data = changes.filter(({ sector }) => sector !== undefined);
  const raw = Buffer.alloc((1 + data.length) * SECTOR);
  raw.write('loge');
  raw.writeUInt32LE(raw.length, 8);
  raw.writeUInt32LE(tail, 12);
  raw.writeBigUInt64LE(BigInt(sequence), 16);
  raw.writeUInt32LE(changes.length, 24);
  GUID.copy(raw, 32);
  raw.writeBigUInt64LE(BigInt(size), 48);
  raw.writeBigUInt64LE(BigInt(size), 56);
  let next = SECTOR;
  for (const [index, { position, sector }] of changes.entries()) {
    const at = 64 + index * 32;
    raw.write(sector === undefined ? 'zero' : 'desc', at);
    raw.writeBigUInt64LE(BigInt(position), at + 16);
    raw.writeBigUInt64LE(BigInt(sequence), at + 24);
    if (sector === undefined) raw.writeBigUInt64LE(BigInt(SECTOR), at + 8);
    else {
      sector.copy(raw, at + 4, SECTOR - 4);
      sector.copy(raw, at + 8, 0, 8);
      sector.copy(raw, next);
      raw.write('data', next);
      raw.writeUInt32LE(0, next + 4);
      raw.writeUInt32LE(sequence, next + SECTOR - 4);
      next += SECTOR;
    }
  }
  sum(raw, 0, raw.length);
  return raw;
}

function sum(bytes: Buffer, at: number, length: number): void {
  bytes.writeUInt32LE(0, at + 4);
  bytes.writeUInt32LE(crc32c(bytes.subarray(at, at + length)), at + 4);
}

/** Where the log of an image as QEMU makes it lies. */
export function logPlace(bytes: Buffer): number {
  return Number(bytes.readBigUInt64LE(HEADERS[0]! + 72));
}

/** Where the table of blocks lies. */
export function tablePlace(bytes: Buffer): number {
  const isFirst = bytes.readUInt32LE(REGIONS[0]! + 16) === 0x2dc27766;
  return Number(bytes.readBigUInt64LE(REGIONS[0]! + 16 + (isFirst ? 16 : 48)));
}

/** Where the metadata lies. */
export function metadataPlace(bytes: Buffer): number {
  const isFirst = bytes.readUInt32LE(REGIONS[0]! + 16) === 0x2dc27766;
  return Number(bytes.readBigUInt64LE(REGIONS[0]! + 16 + (isFirst ? 48 : 16)));
}

/** Puts what stands in the table's first sector into a log of these entries; the table itself is broken. */
export function moveToLog(
  bytes: Buffer,
  log: (table: number, sector: Buffer, size: number) => readonly [number, Buffer][],
): void {
  const logAt = logPlace(bytes);
  const table = tablePlace(bytes);
  const sector = Buffer.from(bytes.subarray(table, table + SECTOR));
  bytes.fill(0xff, table, table + SECTOR);
  bytes.fill(0, logAt, logAt + MIB);
  for (const [at, part] of log(table, sector, bytes.length)) {
    const first = Math.min(part.length, MIB - at);
    part.copy(bytes, logAt + at, 0, first);
    part.copy(bytes, logAt, first);
  }
  for (const at of HEADERS) GUID.copy(bytes, at + 48);
  sumVhdx(bytes, []);
}

/** Makes all checksums fit, those of the log's entries at `entries`, too. */
export function sumVhdx(bytes: Buffer, entries: readonly number[]): void {
  for (const at of HEADERS) sum(bytes, at, SECTOR);
  for (const at of REGIONS) sum(bytes, at, REGIONS_SIZE);
  for (const at of entries) {
    const length = bytes.readUInt32LE(at + 8);
    if (length > 0 && at + length <= bytes.length) sum(bytes, at, length);
  }
}
