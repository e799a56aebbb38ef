/** The map of a VMDK image's disk: that of its extents, one behind the other. */
import { inflateSync } from 'node:zlib';
import { TWO_32 } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { BlockMapping, type FindBlock, type FoundBlock } from '../block-mapping.js';
import { EXTENT, type Extent, type Mapping, SECTOR_SIZE } from '../extent.js';
import type { FormatSource, SourceFile } from '../format.js';
import { readExactly, readUpTo } from '../read-bytes.js';
import { TableSlices } from '../table-slices.js';
import type { DiskExtent, FlatExtent, SeSparseExtent, SparseExtent, VmdkLayout } from './layout.js';

const ENTRY_SIZE = 4;
const SE_ENTRY_SIZE = 8;
const ZERO_GRAIN = 1;
/** Before compressed data: the sector on the disk, and its length. */
const MARKER_SIZE = 12;
/** One look at a flat extent tells so much of it. */
const FLAT_BLOCK = 1 << 21;

/** The first bits of 64-bit entries. */
const SE = { TABLE: 0x1000_0000, NONE: 0, UNMAPPED: 1, ZERO: 2, GRAIN: 3 } as const;
/** Grains of 4 KiB, as numbers can count their bytes. */
const MAX_SE_GRAIN = 2 ** 40;

/** An extent's place on the disk. */
interface Part {
  readonly start: number;
  readonly end: number;
  readonly mapping: BlockMapping;
}

export function vmdkMapping(layout: VmdkLayout, source: FormatSource): Mapping {
  const parts: Part[] = [];
  let start = 0;
  for (const extent of layout.extents) {
    const end = start + extent.body.size;
    if (end > start) parts.push({ start, end, mapping: extentMapping(extent, source) });
    start = end;
  }
  return new ExtentsMapping(layout.size, parts);
}

/** Of one extent alone, from its own start. */
export function extentMapping({ body, file }: DiskExtent, source: FormatSource): BlockMapping {
  const from: SourceFile = file === null ? source : source.extents[file]!;
  const { storage } = from;
  const parts = { storage, disk: body, unit: SECTOR_SIZE };
  if (body.kind === 'flat') {
    return new BlockMapping({ ...parts, blockSize: FLAT_BLOCK, find: flatFinder(body) });
  }
  const tables = new TableSlices(source.cache, from.file);
  const table = tableFinder(body, tables, storage);
  const blockSize = body.grainSize;
  if (body.kind === 'sesparse') {
    const find = seFinder(body, tables, table, storage);
    return new BlockMapping({ ...parts, blockSize, find });
  }
  const decompress = decompressor(storage, body);
  return new BlockMapping({ ...parts, blockSize, find: finder(body, tables, table), decompress });
}

/** Where a table of grains lies in the file, by its number; 0 where there is none. Throws where that is wrong. */
export type FindTable = (index: number) => number;

/** Of one extent alone. */
export function grainTables({ body, file }: DiskExtent, source: FormatSource): FindTable | null {
  if (body.kind === 'flat') return null;
  const from: SourceFile = file === null ? source : source.extents[file]!;
  return tableFinder(body, new TableSlices(source.cache, from.file), from.storage);
}

function tableFinder(
  body: SparseExtent | SeSparseExtent,
  tables: TableSlices,
  storage: Storage,
): FindTable {
  const { directory } = body;
  if (body.kind === 'sparse') {
    return (index) => tables.look32(directory + index * ENTRY_SIZE) * SECTOR_SIZE;
  }
  const tableSize = body.entriesPerTable * SE_ENTRY_SIZE;
  return (index) => {
    tables.look64(directory + index * SE_ENTRY_SIZE);
    if (tables.high === 0 && tables.low === 0) return 0;
    if (tables.high !== SE.TABLE) throw badEntry(storage, `table ${index}`, tables);
    return body.tables + tables.low * tableSize;
  };
}

class ExtentsMapping implements Mapping {
  readonly unit = SECTOR_SIZE;
  readonly size: number;
  readonly #parts: readonly Part[];
  /** The extent that the last look was at: reads go through one from start to end. */
  #last = 0;

  constructor(size: number, parts: readonly Part[]) {
    this.size = size;
    this.#parts = parts;
  }

  map(offset: number, length: number, extent: Extent): void {
    const { start, end, mapping } = this.#partAt(offset);
    mapping.map(offset - start, Math.min(length, end - offset), extent);
  }

  decompress(extent: Extent): Uint8Array {
    // A file that is named twice is the same both times.
    const part = this.#parts.find(({ mapping }) => mapping.storage === extent.storage);
    const bytes = part!.mapping.decompress(extent);
    if (extent.skip + extent.length <= bytes.length) return bytes;
    const { storage, hostOffset } = extent;
    throw corrupt(storage!, hostOffset, `it holds ${bytes.length} bytes`);
  }

  #partAt(offset: number): Part {
    const last = this.#parts[this.#last];
    if (last !== undefined && offset >= last.start && offset < last.end) return last;
    let [low, high] = [0, this.#parts.length - 1];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (offset < this.#parts[middle]!.end) high = middle;
      else low = middle + 1;
    }
    this.#last = low;
    return this.#parts[low]!;
  }
}

function flatFinder({ start }: FlatExtent): FindBlock {
  return (block, found) => {
    found.run = 1;
    found.kind = EXTENT.DATA;
    found.hostOffset = start + block * FLAT_BLOCK;
  };
}

function finder(body: SparseExtent, tables: TableSlices, findTable: FindTable): FindBlock {
  const { entriesPerTable, compressed, zeroGrains, grainSize } = body;
  return (block, found) => {
    const index = Math.floor(block / entriesPerTable);
    const within = block - index * entriesPerTable;
    const table = findTable(index);
    found.kind = EXTENT.UNALLOCATED;
    found.run = entriesPerTable - within;
    if (table === 0) return;
    const entry = tables.look32(table + within * ENTRY_SIZE);
    found.run = 1;
    if (zeroGrains && entry === ZERO_GRAIN) found.kind = EXTENT.ZERO;
    else if (entry !== 0) {
      found.kind = compressed ? EXTENT.COMPRESSED : EXTENT.DATA;
      found.hostOffset = entry * SECTOR_SIZE;
      found.hostLength = 2 * grainSize;
    }
  };
}

function seFinder(
  body: SeSparseExtent,
  tables: TableSlices,
  findTable: FindTable,
  storage: Storage,
): FindBlock {
  const { entriesPerTable, grainSize } = body;
  return (block, found) => {
    const index = Math.floor(block / entriesPerTable);
    const within = block - index * entriesPerTable;
    const table = findTable(index);
    found.kind = EXTENT.UNALLOCATED;
    found.run = entriesPerTable - within;
    if (table === 0) return;
    tables.look64(table + within * SE_ENTRY_SIZE);
    found.run = 1;
    if (!readSeEntry(tables, found)) throw badEntry(storage, `grain ${block}`, tables);
    found.hostOffset = body.grains + found.hostOffset * grainSize;
  };
}

/** What the entry says, with the number of a grain for its place; false where it says nothing. */
function readSeEntry({ high, low }: TableSlices, found: FoundBlock): boolean {
  switch (high >>> 28) {
    case SE.NONE:
      found.hostOffset = 0;
      return high === 0 && low === 0;
    case SE.UNMAPPED:
    case SE.ZERO:
      found.kind = EXTENT.ZERO;
      found.hostOffset = 0;
      return true;
    case SE.GRAIN:
      found.kind = EXTENT.DATA;
      found.hostOffset = ((high >>> 16) & 0xfff) + ((high & 0xffff) * TWO_32 + low) * 0x1000;
      return found.hostOffset < MAX_SE_GRAIN;
    default:
      return false;
  }
}

function badEntry({ name }: Storage, what: string, { high, low }: TableSlices): ImageError {
  const hex = [high, low].map((half) => half.toString(16).padStart(8, '0')).join('');
  const message = `${name}: ${what} has the entry 0x${hex}, which is none`;
  return new ImageError('corrupt', 'EIO', message, { path: name });
}

/** Keeps the last grain: reads go through one from start to end. */
function decompressor(storage: Storage, { grainSize, markers }: SparseExtent) {
  let kept = -1;
  let grain: Uint8Array = new Uint8Array(0);
  return (offset: number): Uint8Array => {
    if (offset === kept) return grain;
    const packed = markers
      ? marked(storage, offset, grainSize)
      : readUpTo(storage, offset, grainSize);
    kept = -1;
    try {
      grain = inflateSync(packed.bytes, { maxOutputLength: grainSize });
    } catch (error) {
      throw corrupt(storage, offset, error instanceof Error ? error.message : 'not deflate');
    }
    kept = offset;
    return grain;
  };
}

function marked(storage: Storage, offset: number, grainSize: number) {
  const { view } = readExactly(storage, offset, MARKER_SIZE, 'grain marker');
  const length = view.getUint32(8, true);
  if (length === 0 || length > 2 * grainSize) throw corrupt(storage, offset, `${length} bytes`);
  return readExactly(storage, offset + MARKER_SIZE, length, 'compressed grain');
}

function corrupt({ name }: Storage, offset: number, why: string): ImageError {
  const place = `the grain at offset 0x${offset.toString(16)}`;
  const message = `${name}: cannot decompress ${place}: ${why}`;
  return new ImageError('corrupt', 'EIO', message, { path: name, offset });
}
