/** Space-efficient sparse extents, as ESXi writes snapshots of large disks. */
import { struct, u64, type FieldType, bits64 } from '../../codec/struct.js';
import { ImageError, invalid } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { SECTOR_SIZE } from '../extent.js';
import { readExactly } from '../read-bytes.js';
import type { SeSparseExtent } from './layout.js';
import { grainTables } from './sparse-header.js';

const CONSTANT = struct('seSparse header', 'little', {
  magic: bits64,
  version: bits64,
  capacity: u64,
  grain: u64,
  tableSize: u64,
  flags: bits64,
  reserved1: bits64,
  reserved2: bits64,
  reserved3: bits64,
  reserved4: bits64,
  volatileOffset: u64,
  volatileSize: u64,
  journalHeaderOffset: u64,
  journalHeaderSize: u64,
  journalOffset: u64,
  journalSize: u64,
  directoryOffset: u64,
  directorySize: u64,
  tablesOffset: u64,
  tablesSize: u64,
  freeBitmapOffset: u64,
  freeBitmapSize: u64,
  backmapOffset: u64,
  backmapSize: u64,
  grainsOffset: u64,
  grainsSize: u64,
} satisfies Record<string, FieldType<unknown>>);

const VOLATILE = struct('seSparse volatile header', 'little', {
  magic: bits64,
  freeTables: u64,
  nextSequence: u64,
  replayJournal: bits64,
});

const MAGIC = { CONSTANT: 0xcafebaben, VOLATILE: 0xcafecafen } as const;
const VERSION = 0x2_0000_0001n;
/** Sectors: the only sizes that are written. */
const GRAIN = 8;
const TABLE = 64;
const ENTRY_SIZE = 8;
const ENTRIES_PER_TABLE = (TABLE * SECTOR_SIZE) / ENTRY_SIZE;
/** Sectors, as entries of tables can count them. */
const MAX_OFFSET = 2 ** 43;

export function seSparseExtent(storage: Storage): SeSparseExtent {
  const first = readExactly(storage, 0, SECTOR_SIZE, 'seSparse header');
  const header = CONSTANT.read(first.view, 0);
  if (header.magic !== MAGIC.CONSTANT)
    throw invalid(`Bad const header magic: ${hex(header.magic)}`);
  if (header.version !== VERSION) throw unsupported(`Unsupported version: ${hex(header.version)}`);
  if (header.grain !== GRAIN) throw unsupported(`Unsupported grain size: ${header.grain}`);
  if (header.tableSize !== TABLE) {
    throw unsupported(`Unsupported grain table size: ${header.tableSize}`);
  }
  if (header.flags !== 0n) throw unsupported(`Unsupported flags: ${hex(header.flags)}`);
  const reserved = [header.reserved1, header.reserved2, header.reserved3, header.reserved4];
  if (reserved.some((bits) => bits !== 0n)) {
    throw unsupported(`Unsupported reserved bits: ${reserved.map(hex).join(' ')}`);
  }
  checkPadding(first.bytes, CONSTANT.size, 'const');
  checkVolatile(storage, header.volatileOffset * SECTOR_SIZE);
  const { capacity, directoryOffset, directorySize, tablesOffset, grainsOffset } = header;
  const tables = { grain: GRAIN, entriesPerTable: ENTRIES_PER_TABLE, directory: directoryOffset };
  const found = grainTables(storage, tables, capacity, ENTRY_SIZE);
  if (directorySize * (SECTOR_SIZE / ENTRY_SIZE) * ENTRIES_PER_TABLE * GRAIN < capacity) {
    throw invalid('VMDK grain directory is too small');
  }
  if (tablesOffset > MAX_OFFSET || grainsOffset > MAX_OFFSET) {
    throw invalid('seSparse tables or grains lie past the end of the file');
  }
  return {
    kind: 'sesparse',
    size: capacity * SECTOR_SIZE,
    ...found,
    tables: tablesOffset * SECTOR_SIZE,
    grains: grainsOffset * SECTOR_SIZE,
  };
}

function checkVolatile(storage: Storage, position: number): void {
  const buffer = readExactly(storage, position, SECTOR_SIZE, 'seSparse volatile header');
  const header = VOLATILE.read(buffer.view, 0);
  if (header.magic !== MAGIC.VOLATILE) {
    throw invalid(`Bad volatile header magic: ${hex(header.magic)}`);
  }
  if (header.replayJournal !== 0n) {
    throw unsupported('Image is dirty, Replaying journal not supported');
  }
  checkPadding(buffer.bytes, VOLATILE.size, 'volatile');
}

function checkPadding(raw: Buffer, start: number, which: string): void {
  if (raw.subarray(start).every((byte) => byte === 0)) return;
  throw unsupported(`Unsupported non-zero ${which} header padding`);
}

function hex(value: bigint): string {
  return `0x${value.toString(16).padStart(16, '0')}`;
}

function unsupported(message: string): ImageError {
  return new ImageError('unsupported', 'ENOTSUP', message);
}
