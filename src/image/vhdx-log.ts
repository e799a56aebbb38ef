/** VHDX's log: changes of tables that were not written to their places yet. They are found, and nothing is written. */
import { alignUp, isAligned } from '../codec/bits.js';
import { crc32c } from '../codec/crc32c.js';
import { bytes, struct, u32, u64 } from '../codec/struct.js';
import { ImageError, invalid } from '../errors.js';
import type { FilePatch, FilePatches } from '../storage/patched.js';
import type { Storage } from '../storage/storage.js';
import { readExactly } from './read-bytes.js';

const ENTRY = struct('VHDX log entry', 'little', {
  signature: bytes(4),
  checksum: u32,
  length: u32,
  tail: u32,
  sequence: u64,
  descriptors: u32,
  reserved: u32,
  logGuid: bytes(16),
  flushedSize: u64,
  lastSize: u64,
});
/** `trailing` and `leading`: the bytes of a data sector that do not stand in the log's; `leading` of zeroes: how many. */
const DESCRIPTOR = struct('VHDX log descriptor', 'little', {
  signature: bytes(4),
  trailing: bytes(4),
  leading: bytes(8),
  position: u64,
  sequence: u64,
});
const MIB = 1 << 20;
const SECTOR = 4096;
/** Descriptors in a sector; the header takes the place of two. */
const PER_SECTOR = SECTOR / DESCRIPTOR.size;
const LEADING = 8;
const TRAILING = 4;
/** All of it is held in memory, and each of its bytes is summed up so many times at most. */
const MAX_LOG = 64 * MIB;
const MAX_SUMS = 4;
const MAX_PATCHES = 16_384;

export interface LogPlace {
  readonly logGuid: Uint8Array;
  readonly logOffset: number;
  readonly logLength: number;
}

interface Entry {
  /** Its first sector in the log. */
  readonly at: number;
  readonly sectors: number;
  readonly header: ReturnType<typeof ENTRY.read>;
  /** All of it, in one piece. */
  readonly raw: Buffer;
}

/** What the log changes; null where there is nothing. Throws where it is damaged, or too large. */
export function readLog(storage: Storage, place: LogPlace): FilePatches | null {
  const { logGuid, logOffset, logLength } = place;
  if (logOffset < MIB || !isAligned(logOffset, MIB)) throw invalid('VHDX log is invalid');
  if (logLength === 0 || logGuid.every((byte) => byte === 0)) return null;
  if (!isAligned(logLength, MIB)) throw invalid('VHDX log is invalid');
  if (logLength > MAX_LOG) throw tooMuch(`VHDX log of ${logLength} bytes`, `${MAX_LOG} bytes`);
  const log = readExactly(storage, logOffset, logLength, 'VHDX log').bytes;
  const entries = activeEntries(entriesOf(log, logGuid), log.length / SECTOR);
  if (entries.length === 0) return null;
  const list: FilePatch[] = [];
  let size = 0;
  for (const entry of entries) {
    const { flushedSize, lastSize } = entry.header;
    if (flushedSize > storage.size()) {
      throw invalid(`VHDX file is truncated: its log tells of ${flushedSize} bytes`);
    }
    if (lastSize > Number.MAX_SAFE_INTEGER - MIB) throw invalid('VHDX log is invalid');
    size = Math.max(size, alignUp(lastSize, MIB));
    addPatches(entry, list);
  }
  return { list, size };
}

/** Every entry that is whole, by the sector in which it begins. */
function entriesOf(log: Buffer, logGuid: Uint8Array): Map<number, Entry> {
  const found = new Map<number, Entry>();
  const sectors = log.length / SECTOR;
  let budget = log.length * MAX_SUMS;
  for (let at = 0; at < sectors; at++) {
    const view = new DataView(log.buffer, log.byteOffset + at * SECTOR, SECTOR);
    const header = ENTRY.read(view, 0);
    const { signature, length, sequence, descriptors } = header;
    if (Buffer.from(signature).toString('latin1') !== 'loge' || sequence === 0) continue;
    if (length === 0 || length > log.length || !isAligned(length, SECTOR)) continue;
    if (!Buffer.from(logGuid).equals(header.logGuid)) continue;
    if (descriptorSectors(descriptors) * SECTOR > length) continue;
    budget -= length;
    if (budget < 0) throw invalid('VHDX log is invalid: its entries overlap');
    const raw = Buffer.alloc(length);
    const first = Math.min(length, log.length - at * SECTOR);
    log.copy(raw, 0, at * SECTOR, at * SECTOR + first);
    // The log is a ring.
    log.copy(raw, first, 0, length - first);
    raw.fill(0, 4, 8);
    if (crc32c(raw) !== header.checksum) continue;
    found.set(at, { at, sectors: length / SECTOR, header, raw });
  }
  return found;
}

/**
 * The entries that count, the oldest first: of the runs of entries that follow each other, in place and in number, and
 * have the one that their last says they begin with, that with the greatest number. Those behind a torn one lack theirs.
 */
function activeEntries(entries: ReadonlyMap<number, Entry>, sectors: number): Entry[] {
  const endOf = ({ at, sectors: length }: Entry) => (at + length) % sectors;
  const byEnd = new Map<string, Entry>();
  for (const entry of entries.values()) {
    byEnd.set(`${endOf(entry)} ${entry.header.sequence}`, entry);
  }
  const isLast = (entry: Entry) =>
    entries.get(endOf(entry))?.header.sequence !== entry.header.sequence + 1;
  const runOf = (last: Entry): Entry[] | null => {
    const run: Entry[] = [];
    for (let entry: Entry | undefined = last; entry !== undefined; ) {
      run.push(entry);
      if (entry.at === last.header.tail / SECTOR) return run.reverse();
      entry = byEnd.get(`${entry.at} ${entry.header.sequence - 1}`);
    }
    return null;
  };
  const lasts = [...entries.values()].filter(isLast);
  for (const last of lasts.sort((a, b) => b.header.sequence - a.header.sequence)) {
    const run = runOf(last);
    if (run !== null) return run;
  }
  if (lasts.length === 0) return [];
  throw invalid('VHDX log has lost its start');
}

function addPatches({ header, raw }: Entry, list: FilePatch[]): void {
  const { descriptors, sequence } = header;
  const view = new DataView(raw.buffer, raw.byteOffset, raw.length);
  let data = descriptorSectors(descriptors) * SECTOR;
  for (let n = 0; n < descriptors; n++) {
    const at = ENTRY.size + n * DESCRIPTOR.size;
    const descriptor = DESCRIPTOR.read(view, at);
    const { position, leading, trailing } = descriptor;
    const signature = Buffer.from(descriptor.signature).toString('latin1');
    const isWrong = descriptor.sequence !== sequence || !isAligned(position, SECTOR);
    if (isWrong || position > Number.MAX_SAFE_INTEGER) throw damaged(at);
    if (list.length === MAX_PATCHES) throw tooMuch('VHDX log', `${MAX_PATCHES} changes`);
    if (signature === 'zero') {
      const length = Number(Buffer.from(leading).readBigUInt64LE());
      if (!isAligned(length, SECTOR)) throw damaged(at);
      list.push({ position, length, bytes: null });
      continue;
    }
    const sector = Buffer.from(raw.subarray(data, data + SECTOR));
    data += SECTOR;
    if (signature !== 'desc' || !isDataOf(sector, sequence)) throw damaged(at);
    sector.set(leading, 0);
    sector.set(trailing, SECTOR - TRAILING);
    list.push({ position, length: SECTOR, bytes: new Uint8Array(sector) });
  }
}

function isDataOf(sector: Buffer, sequence: number): boolean {
  if (sector.length !== SECTOR || sector.toString('latin1', 0, 4) !== 'data') return false;
  const high = sector.readUInt32LE(LEADING - 4);
  return high * 2 ** 32 + sector.readUInt32LE(SECTOR - TRAILING) === sequence;
}

function descriptorSectors(descriptors: number): number {
  return Math.ceil((descriptors + ENTRY.size / DESCRIPTOR.size) / PER_SECTOR);
}

function damaged(at: number): ImageError {
  return invalid(`VHDX log is damaged: descriptor at byte ${at} of an entry`);
}

function tooMuch(what: string, most: string): ImageError {
  const limit = `at most ${most}`;
  return new ImageError('unsupported', 'EFBIG', `${what} is too large to be replayed`, { limit });
}
