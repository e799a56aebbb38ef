/** The headers of sparse extents: hosted ones (KDMV), and those of ESX (COWD). */
import { alignUp, divCeil } from '../../codec/bits.js';
import { bytes, struct, u16, u32, u64, u8 } from '../../codec/struct.js';
import { ImageError, invalid } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { SECTOR_SIZE } from '../extent.js';
import { readExactly } from '../read-bytes.js';
import type { GrainTables, SparseExtent } from './layout.js';

const HEADER = struct('VMDK header', 'little', {
  magic: bytes(4),
  version: u32,
  flags: u32,
  capacity: u64,
  grain: u64,
  descriptorOffset: u64,
  descriptorSize: u64,
  entriesPerTable: u32,
  redundantDirectory: u64,
  directory: u64,
  overhead: u64,
  unclean: u8,
  newlines: bytes(4),
  compression: u16,
});

const COWD = struct('VMDK header of ESX', 'little', {
  magic: bytes(4),
  version: u32,
  flags: u32,
  sectors: u32,
  grain: u32,
  directory: u32,
  directoryEntries: u32,
});

/** The last three sectors: a marker, the header once more, and the marker of the end. */
const MARKER = struct('VMDK marker', 'little', { value: u64, size: u32, type: u32 });
const FOOTER_SIZE = 3 * SECTOR_SIZE;
const MARKER_TYPE = { END: 0, FOOTER: 3 } as const;

const FLAG = { NEWLINES: 1, ZERO_GRAIN: 4, COMPRESSED: 0x1_0000, MARKERS: 0x2_0000 } as const;
const NEWLINES = '\n \r\n';
const DEFLATE = 1;
const MAX_VERSION = 3;
/** Sectors. A grain that is compressed is held in memory. */
const MAX_GRAIN = 0x20_0000;
const MAX_COMPRESSED_GRAIN = 0x2_0000;
const MAX_ENTRIES = 512;
const COWD_ENTRIES = 4096;
const MAX_DIRECTORY = 32 << 20;
/** Where the header says that its copy at the end of the file counts. */
const AT_END = 2 ** 64;

export const MAGIC = { HOSTED: 'KDMV', ESX: 'COWD' } as const;

export type SparseHeader = ReturnType<typeof HEADER.read>;

export function magicOf(storage: Storage): string {
  return readExactly(storage, 0, 4, 'VMDK header').bytes.toString('latin1');
}

/** The header at the file's start; a capacity of 0 says that its descriptor counts. */
export function readSparseHeader(storage: Storage): SparseHeader {
  return HEADER.read(readExactly(storage, 0, HEADER.size, 'VMDK header').view, 0);
}

/** What a hosted sparse extent is, its footer read where that counts. Throws what is wrong with it. */
export function sparseExtent(storage: Storage, first: SparseHeader): SparseExtent {
  const header = first.directory < AT_END ? first : readFooter(storage);
  const { version, flags, capacity, grain, entriesPerTable, compression, overhead } = header;
  if (version > MAX_VERSION) {
    throw new ImageError('unsupported', 'ENOTSUP', `Unsupported VMDK version ${version}`);
  }
  if (entriesPerTable > MAX_ENTRIES) throw invalid('L2 table size too big');
  if (entriesPerTable * grain === 0) throw invalid('L1 entry size is invalid');
  if (overhead > alignUp(storage.size(), SECTOR_SIZE) / SECTOR_SIZE) {
    throw invalid(`File truncated, expecting at least ${overhead * SECTOR_SIZE} bytes`);
  }
  const compressed = compression === DEFLATE;
  if (!compressed && (compression !== 0 || (flags & FLAG.COMPRESSED) !== 0)) {
    throw new ImageError('unsupported', 'ENOTSUP', 'VMDK grains are compressed in an unknown way');
  }
  if (compressed && grain > MAX_COMPRESSED_GRAIN) throw badGrain();
  const tables = { grain, entriesPerTable, directory: header.directory };
  return {
    kind: 'sparse',
    size: capacity * SECTOR_SIZE,
    ...grainTables(storage, tables, capacity, 4),
    zeroGrains: (flags & FLAG.ZERO_GRAIN) !== 0,
    compressed,
    markers: (flags & FLAG.MARKERS) !== 0,
  };
}

/** What a sparse extent of ESX is. */
export function cowdExtent(storage: Storage): SparseExtent {
  const header = COWD.read(readExactly(storage, 0, COWD.size, 'VMDK header').view, 0);
  const { sectors, grain, directory, directoryEntries } = header;
  const tables = { grain, entriesPerTable: COWD_ENTRIES, directory };
  if (directoryEntries > MAX_DIRECTORY) throw invalid('L1 size too big');
  const found = grainTables(storage, tables, sectors, 4);
  if (directoryEntries * COWD_ENTRIES * grain < sectors) {
    throw invalid('VMDK grain directory is too small');
  }
  const plain = { zeroGrains: false, compressed: false, markers: false };
  return { kind: 'sparse', size: sectors * SECTOR_SIZE, ...found, ...plain };
}

/**
 * Checks where grains are found: all given in sectors, `entrySize` in bytes. No table is larger in memory
 * than its file.
 */
export function grainTables(
  storage: Storage,
  tables: { grain: number; entriesPerTable: number; directory: number },
  sectors: number,
  entrySize: number,
): GrainTables {
  const { grain, entriesPerTable } = tables;
  if (grain < 1 || grain > MAX_GRAIN) throw badGrain();
  if (sectors > Number.MAX_SAFE_INTEGER / SECTOR_SIZE) throw invalid('VMDK capacity is too large');
  const entries = divCeil(sectors, grain * entriesPerTable);
  if (entries > MAX_DIRECTORY) throw invalid('L1 size too big');
  const directory = tables.directory * SECTOR_SIZE;
  if (directory + entries * entrySize > storage.size()) {
    throw invalid('VMDK grain directory lies past the end of the file');
  }
  return { grainSize: grain * SECTOR_SIZE, directory, entriesPerTable };
}

/** Says of a header what makes it none at all. */
export function checkMagic({ magic, flags, newlines }: SparseHeader): void {
  if (Buffer.from(magic).toString('latin1') !== MAGIC.HOSTED) throw notVmdk();
  if ((flags & FLAG.NEWLINES) === 0) return;
  if (Buffer.from(newlines).toString('latin1') === NEWLINES) return;
  throw invalid('VMDK header was changed by a transfer as text');
}

export function notVmdk(): ImageError {
  return invalid('Image not in VMDK format');
}

function badGrain(): ImageError {
  return invalid('Invalid granularity, image may be corrupt');
}

function readFooter(storage: Storage): SparseHeader {
  const position = alignUp(storage.size(), SECTOR_SIZE) - FOOTER_SIZE;
  if (position < 0) throw invalid('Invalid footer');
  const length = storage.size() - position;
  const { view } = readExactly(storage, position, length, 'VMDK footer');
  if (length < 2 * SECTOR_SIZE + MARKER.size) throw invalid('Invalid footer');
  const [before, header] = [MARKER.read(view, 0), HEADER.read(view, SECTOR_SIZE)];
  const end = MARKER.read(view, 2 * SECTOR_SIZE);
  const isFooter = before.size === 0 && before.type === MARKER_TYPE.FOOTER;
  const isEnd = end.value === 0 && end.size === 0 && end.type === MARKER_TYPE.END;
  const hasMagic = Buffer.from(header.magic).toString('latin1') === MAGIC.HOSTED;
  if (!isFooter || !isEnd || !hasMagic || header.directory >= AT_END) {
    throw invalid('Invalid footer');
  }
  return header;
}
