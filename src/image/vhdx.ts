/** VHDX: two headers, two region tables, a table of blocks. What its log holds is laid over the file in memory. */
import { divCeil, isAligned } from '../codec/bits.js';
import { crc32c } from '../codec/crc32c.js';
import { bytes, struct, u16, u32, u64 } from '../codec/struct.js';
import { ImageError, invalid } from '../errors.js';
import { type FilePatches, PatchedStorage } from '../storage/patched.js';
import type { MutableStorage, Storage } from '../storage/storage.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import { BlockMapping } from './block-mapping.js';
import { type CheckResult, NOTHING_FOUND, type ReportFormat } from './check-result.js';
import { EXTENT, SECTOR_SIZE } from './extent.js';
import { type CheckedSource, defineFormat, type FormatSource, PLAIN_FACTS } from './format.js';
import { readExactly } from './read-bytes.js';
import { TableSlices } from './table-slices.js';
import { readLog } from './vhdx-log.js';
import { parentName } from './vhdx-parent.js';

const KIB = 1024;
const MIB = KIB * KIB;

const HEADER = struct('VHDX header', 'little', {
  signature: bytes(4),
  checksum: u32,
  sequence: u64,
  fileWriteGuid: bytes(16),
  dataWriteGuid: bytes(16),
  logGuid: bytes(16),
  logVersion: u16,
  version: u16,
  logLength: u32,
  logOffset: u64,
});
const HEADER_PLACES = [64 * KIB, 128 * KIB];
const HEADER_SIZE = 4 * KIB;

const REGION_HEAD = struct('VHDX region table', 'little', {
  signature: bytes(4),
  checksum: u32,
  entries: u32,
  reserved: u32,
});
const REGION = struct('VHDX region', 'little', {
  guid: bytes(16),
  offset: u64,
  length: u32,
  required: u32,
});
const REGION_PLACES = [192 * KIB, 256 * KIB];
const REGION_SIZE = 64 * KIB;
const MAX_REGIONS = 2047;

const METADATA_HEAD = struct('VHDX metadata table', 'little', {
  signature: bytes(8),
  reserved: u16,
  entries: u16,
  more: bytes(20),
});
const METADATA = struct('VHDX metadata item', 'little', {
  guid: bytes(16),
  offset: u32,
  length: u32,
  flags: u32,
  reserved: u32,
});
const MAX_METADATA = 2047;

/** As they are written in text. */
const GUID = {
  BLOCKS: '2dc27766-f623-4200-9d64-115e9bfd4a08',
  METADATA: '8b7ca206-4790-4b9a-b8fe-575f050f886e',
  PARAMETERS: 'caa16737-fa36-4d43-b3b6-33f0aa44e76b',
  DISK_SIZE: '2fa54224-cd1b-4876-b211-5dbed83bf4b8',
  SECTOR_SIZE: '8141bf1d-a96f-4709-ba47-f233a8faab5f',
  PARENT: 'a8d35f2d-b30b-454d-abf7-d3d84834ab0c',
} as const;

const HAS_PARENT = 2;
const MAX_BLOCK = 256 * MIB;
const MAX_DISK = 64 * 2 ** 40;
const ENTRY_SIZE = 8;
/** Sectors whose bitmap fills one block of bitmaps. */
const SECTORS_PER_CHUNK = 2 ** 23;
const STATE_BITS = 7;
const STATE = { NOT_PRESENT: 0, ZERO: 2, PRESENT: 6, PARTIAL: 7 } as const;

interface Layout {
  readonly size: number;
  readonly blockSize: number;
  readonly table: number;
  /** Entries of data blocks between two of bitmaps. */
  readonly chunkRatio: number;
  /** Where no block can lie: headers, log, and the regions of tables. */
  readonly taken: readonly Region[];
}

export const VHDX = defineFormat<Layout>({
  format: 'vhdx',
  tableOrder: 'little',
  open: (storage: MutableStorage) => {
    const { patches, log } = readChanges(storage);
    const changed = patches === null ? storage : new PatchedStorage(storage, patches);
    const layout = readLayout(changed, log);
    const { size, blockSize: clusterSize } = layout;
    const dirty = patches !== null;
    const facts = { ...PLAIN_FACTS, size, clusterSize, dirty };
    return { facts, layout, ...(patches && { patches }) };
  },
  mapping,
  check: checkVhdx,
});

function mapping(layout: Layout, { storage, cache, file }: FormatSource): BlockMapping {
  const { blockSize, table, chunkRatio, taken } = layout;
  const tables = new TableSlices(cache, file);
  return new BlockMapping({
    storage,
    disk: layout,
    blockSize,
    unit: SECTOR_SIZE,
    find: (block, found) => {
      const position = table + (block + Math.floor(block / chunkRatio)) * ENTRY_SIZE;
      tables.look64(position);
      const state = tables.low & STATE_BITS;
      found.run = 1;
      found.kind = state === STATE.PRESENT ? EXTENT.DATA : EXTENT.ZERO;
      found.hostOffset = tables.high * 2 ** 32 + (tables.low - (tables.low % MIB));
      const isWrong = state === STATE.PRESENT && found.hostOffset > Number.MAX_SAFE_INTEGER;
      if (state === STATE.PARTIAL || isWrong) {
        throw badBlock(storage, block, position, `is in state ${state}`);
      }
      if (state !== STATE.PRESENT) return;
      const other = overlapping(found.hostOffset, blockSize, taken);
      if (other === undefined) return;
      const text = overlapText(found.hostOffset, blockSize, other);
      throw badBlock(storage, block, position, `lies over a table: ${text}`);
    },
  });
}

function badBlock({ name }: Storage, block: number, position: number, what: string): ImageError {
  const context = { path: name, offset: position, limit: `entry at 0x${position.toString(16)}` };
  return new ImageError('corrupt', 'EIO', `${name}: block ${block} ${what}`, context);
}

function readLayout(storage: Storage, log: Region): Layout {
  const head = [{ offset: 0, length: MIB }];
  if (log.length > 0) head.push(log);
  const regions = readRegions(storage, head);
  const blocks = regions.get(GUID.BLOCKS);
  const metadata = regions.get(GUID.METADATA);
  if (blocks === undefined || metadata === undefined) throw invalid('VHDX lacks a region');
  const items = readMetadata(storage, metadata);
  const item = (guid: string, size: number) => items.read(guid, size);
  const parameters = item(GUID.PARAMETERS, 8);
  const size = Number(item(GUID.DISK_SIZE, 8).view.getBigUint64(0, true));
  const sectorSize = item(GUID.SECTOR_SIZE, 4).view.getUint32(0, true);
  const blockSize = parameters.view.getUint32(0, true);
  if ((parameters.view.getUint32(4, true) & HAS_PARENT) !== 0) {
    const length = Math.min(items.lengthOf(GUID.PARENT), REGION_SIZE);
    const name = length === 0 ? null : parentName(item(GUID.PARENT, length));
    const message = `VHDX images with a parent (${name === null ? 'no name' : `'${name}'`})`;
    throw new ImageError('unsupported', 'ENOTSUP', `${message} are not supported`);
  }
  if (sectorSize !== 512 && sectorSize !== 4096) throw invalid(`sector size ${sectorSize}`);
  if (blockSize < MIB || blockSize > MAX_BLOCK || !Number.isInteger(Math.log2(blockSize))) {
    throw invalid(`VHDX block size ${blockSize} is invalid`);
  }
  if (size > MAX_DISK || !isAligned(size, sectorSize)) throw invalid('VHDX disk size is invalid');
  const chunkRatio = (SECTORS_PER_CHUNK * sectorSize) / blockSize;
  const count = divCeil(size, blockSize);
  const entries = count + Math.floor(Math.max(0, count - 1) / chunkRatio);
  if (entries * ENTRY_SIZE > blocks.length) throw invalid('VHDX block table is too small');
  return { size, blockSize, table: blocks.offset, chunkRatio, taken: [...head, blocks, metadata] };
}

/** Each block must lie in the file as far as the disk goes, and not over tables. */
function checkVhdx(layout: Layout, source: CheckedSource, report: ReportFormat): CheckResult {
  const { size, blockSize, table, chunkRatio, taken } = layout;
  const tables = new TableSlices(source.cache, source.file);
  const fileSize = source.storage.size();
  let corruptions = 0;
  for (let block = 0; block * blockSize < size; block++) {
    const entry = block + Math.floor(block / chunkRatio);
    tables.look64(table + entry * ENTRY_SIZE);
    if ((tables.low & STATE_BITS) !== STATE.PRESENT) continue;
    const start = tables.high * 2 ** 32 + (tables.low - (tables.low % MIB));
    const end = start + Math.min(blockSize, size - block * blockSize);
    const other = overlapping(start, blockSize, taken);
    if (other !== undefined) {
      corruptions++;
      report({ kind: 'vhdx-overlap', text: overlapText(start, blockSize, other) });
    }
    if (end <= fileSize) continue;
    corruptions++;
    const isStart = start >= fileSize;
    report({ kind: 'vhdx-outside', entry, isStart, offset: isStart ? start : end - 1, fileSize });
  }
  return { ...NOTHING_FOUND, corruptions };
}

/** What the log of the header that counts changes: that is the newer of those that are whole. */
function readChanges(storage: Storage): { patches: FilePatches | null; log: Region } {
  const magic = readExactly(storage, 0, 8, 'VHDX identifier').bytes.toString('latin1');
  if (magic !== 'vhdxfile') throw invalid('Image not in VHDX format');
  let newest: ReturnType<typeof HEADER.read> | undefined;
  for (const place of HEADER_PLACES) {
    const buffer = readExactly(storage, place, HEADER_SIZE, 'VHDX header');
    const header = HEADER.read(buffer.view, 0);
    if (!isWhole(buffer, 'head')) continue;
    if (newest === undefined || header.sequence > newest.sequence) newest = header;
  }
  if (newest === undefined) throw invalid('No valid VHDX header found');
  if (newest.version !== 1 || newest.logVersion !== 0) throw invalid('VHDX version is unknown');
  const log = { offset: newest.logOffset, length: newest.logLength };
  return { patches: readLog(storage, newest), log };
}

/** By its signature, and its checksum, which counts itself as zero. */
function isWhole({ bytes: raw, view }: IoBuffer, signature: string): boolean {
  if (raw.toString('latin1', 0, 4) !== signature) return false;
  const checksum = view.getUint32(4, true);
  view.setUint32(4, 0, true);
  return crc32c(raw) === checksum;
}

interface Region {
  readonly offset: number;
  readonly length: number;
}

/** The one of `taken` that shares bytes with a region. */
function overlapping(offset: number, length: number, taken: readonly Region[]): Region | undefined {
  for (const other of taken) {
    if (offset < other.offset + other.length && other.offset < offset + length) return other;
  }
  return undefined;
}

function overlapText(offset: number, length: number, other: Region): string {
  const range = `${other.offset}-${other.offset + other.length}`;
  return `VHDX region ${offset}-${offset + length} overlaps with region ${range}`;
}

/** The regions, none of which may lie over another one, nor over what is in the file's `head`. */
function readRegions(storage: Storage, head: readonly Region[]): ReadonlyMap<string, Region> {
  for (const place of REGION_PLACES) {
    const buffer = readExactly(storage, place, REGION_SIZE, 'VHDX region table');
    if (!isWhole(buffer, 'regi')) continue;
    const { entries } = REGION_HEAD.read(buffer.view, 0);
    if (entries > MAX_REGIONS) throw invalid('VHDX region table is invalid');
    const regions = new Map<string, Region>();
    const taken = [...head];
    for (let n = 0; n < entries; n++) {
      const at = REGION_HEAD.size + n * REGION.size;
      const { guid, offset, length, required } = REGION.read(buffer.view, at);
      const name = guidText(guid);
      if (!isAligned(offset, MIB) || offset + length > storage.size() || regions.has(name)) {
        throw invalid(`VHDX region ${name} is invalid`);
      }
      const isKnown = name === GUID.BLOCKS || name === GUID.METADATA;
      if ((required & 1) !== 0 && !isKnown) {
        throw new ImageError('unsupported', 'ENOTSUP', `VHDX region ${name} is not known`);
      }
      const other = overlapping(offset, length, taken);
      if (other !== undefined) throw invalid(overlapText(offset, length, other));
      const region = { offset, length };
      taken.push(region);
      regions.set(name, region);
    }
    return regions;
  }
  throw invalid('No valid VHDX region table found');
}

/** Answers how an item is read: its first `size` bytes. */
function readMetadata(storage: Storage, region: Region) {
  const { view, bytes: raw } = readExactly(storage, region.offset, REGION_SIZE, 'VHDX metadata');
  const { entries } = METADATA_HEAD.read(view, 0);
  if (raw.toString('latin1', 0, 8) !== 'metadata' || entries > MAX_METADATA - 1) {
    throw invalid('VHDX metadata table is invalid');
  }
  const items = new Map<string, Region>();
  for (let n = 0; n < entries; n++) {
    const { guid, offset, length } = METADATA.read(view, METADATA_HEAD.size + n * METADATA.size);
    items.set(guidText(guid), { offset, length });
  }
  const lengthOf = (guid: string): number => items.get(guid)?.length ?? 0;
  const read = (guid: string, size: number): IoBuffer => {
    const item = items.get(guid);
    const inRegion = item !== undefined && item.offset + size <= region.length;
    if (!inRegion || item.length < size) throw invalid(`VHDX metadata item ${guid} is missing`);
    return readExactly(storage, region.offset + item.offset, size, 'VHDX metadata item');
  };
  return { lengthOf, read };
}

/** Its first three parts are numbers, little end first. */
function guidText(guid: Uint8Array): string {
  const hex = (from: number, to: number, turned: boolean) => {
    const part = [...guid.subarray(from, to)];
    if (turned) part.reverse();
    return part.map((byte) => byte.toString(16).padStart(2, '0')).join('');
  };
  const start = [hex(0, 4, true), hex(4, 6, true), hex(6, 8, true)];
  return [...start, hex(8, 10, false), hex(10, 16, false)].join('-');
}
