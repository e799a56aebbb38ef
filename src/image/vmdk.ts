/** VMDK in one file: monolithicSparse, and streamOptimized, whose grains are compressed. */
import { inflateSync } from 'node:zlib';
import { divCeil } from '../codec/bits.js';
import { bytes, struct, u16, u32, u64, u8 } from '../codec/struct.js';
import { ImageError, invalid } from '../errors.js';
import type { Storage } from '../storage/storage.js';
import { BlockMapping, type FindBlock } from './block-mapping.js';
import { NOTHING_FOUND } from './check-result.js';
import { EXTENT, SECTOR_SIZE } from './extent.js';
import { defineFormat, type FormatSource, type NamedBacking } from './format.js';
import { readExactly, readUpTo } from './read-bytes.js';
import { TableSlices } from './table-slices.js';

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

const FLAG = { NEWLINES: 1, ZERO_GRAIN: 4, COMPRESSED: 0x1_0000, MARKERS: 0x2_0000 } as const;
const NEWLINES = '\n \r\n';
const DEFLATE = 1;
const ENTRY_SIZE = 4;
const ZERO_GRAIN = 1;
const MAX_VERSION = 3;
/** 64 MiB. */
const MAX_GRAIN = 0x2_0000;
const MAX_ENTRIES = 512;
const MAX_DIRECTORY = (512 << 20) / ENTRY_SIZE;
const MAX_DESCRIPTOR = 20 << 20;
/** Before compressed data: the sector on the disk, and its length. */
const MARKER_SIZE = 12;
/** Where the header says that its copy at the end of the file counts. */
const AT_END = 2 ** 64;

interface Layout {
  readonly size: number;
  /** Bytes. */
  readonly grainSize: number;
  readonly directory: number;
  readonly entriesPerTable: number;
  readonly zeroGrains: boolean;
  readonly compressed: boolean;
  readonly cid: number;
  readonly parentCid: number;
  readonly createType: string;
}

export const VMDK = defineFormat<Layout>({
  format: 'vmdk',
  tableOrder: 'little',
  open: (storage) => {
    const { layout, backing } = readLayout(storage);
    const { size, grainSize } = layout;
    const common = { backing, dirty: false, encrypted: false };
    return { facts: { size, clusterSize: grainSize, ...common }, layout };
  },
  mapping: (layout, source) => {
    const { storage } = source;
    return new BlockMapping({
      storage,
      disk: layout,
      blockSize: layout.grainSize,
      unit: SECTOR_SIZE,
      find: finder(layout, source),
      decompress: decompressor(storage, layout.grainSize),
    });
  },
  check: () => NOTHING_FOUND,
  specific: (layout, filename) => ({
    cid: layout.cid,
    'parent-cid': layout.parentCid,
    'create-type': layout.createType,
    extents: [
      {
        compressed: layout.compressed ? true : undefined,
        'virtual-size': layout.size,
        filename,
        'cluster-size': layout.grainSize,
        format: '',
      },
    ],
  }),
});

function finder(layout: Layout, { cache, file }: FormatSource): FindBlock {
  const { directory, entriesPerTable, compressed, zeroGrains, grainSize } = layout;
  const tables = new TableSlices(cache, file);
  return (block, found) => {
    const index = Math.floor(block / entriesPerTable);
    const table = tables.look32(directory + index * ENTRY_SIZE) * SECTOR_SIZE;
    const within = block - index * entriesPerTable;
    found.kind = EXTENT.UNALLOCATED;
    found.run = entriesPerTable - within;
    if (table === 0) return;
    const entry = tables.look32(table + within * ENTRY_SIZE);
    found.run = 1;
    if (entry === 0) return;
    if (entry === ZERO_GRAIN && zeroGrains) {
      found.kind = EXTENT.ZERO;
      return;
    }
    found.kind = compressed ? EXTENT.COMPRESSED : EXTENT.DATA;
    found.hostOffset = entry * SECTOR_SIZE;
    found.hostLength = 2 * grainSize;
  };
}

/** Keeps the last grain: reads go through one from start to end. */
function decompressor(storage: Storage, grainSize: number) {
  let kept = -1;
  let grain: Uint8Array = new Uint8Array(0);
  return (offset: number): Uint8Array => {
    if (offset === kept) return grain;
    const { view } = readExactly(storage, offset, MARKER_SIZE, 'grain marker');
    const length = view.getUint32(8, true);
    if (length > 2 * grainSize) throw corrupt(storage, offset, `${length} bytes`);
    const packed = readExactly(storage, offset + MARKER_SIZE, length, 'compressed grain');
    kept = -1;
    grain = new Uint8Array(grainSize);
    try {
      grain.set(inflateSync(packed.bytes, { maxOutputLength: grainSize }));
    } catch (error) {
      throw corrupt(storage, offset, error instanceof Error ? error.message : 'not deflate');
    }
    kept = offset;
    return grain;
  };
}

function corrupt({ name }: Storage, offset: number, why: string): ImageError {
  const place = `the grain at offset 0x${offset.toString(16)}`;
  const message = `${name}: cannot decompress ${place}: ${why}`;
  return new ImageError('corrupt', 'EIO', message, { path: name, offset });
}

function readLayout(storage: Storage): { layout: Layout; backing: NamedBacking | null } {
  const header = readHeader(storage);
  const { capacity, grain, entriesPerTable, flags } = header;
  const grainSize = grain * SECTOR_SIZE;
  const isCompressed = (flags & FLAG.COMPRESSED) !== 0;
  const text = readDescriptor(storage, header);
  const size = capacity * SECTOR_SIZE;
  const directoryEntries = divCeil(capacity, grain * entriesPerTable);
  const directory = header.directory * SECTOR_SIZE;
  if (directoryEntries > MAX_DIRECTORY) throw invalid('L1 size too big');
  if (directory + directoryEntries * ENTRY_SIZE > storage.size()) {
    throw invalid('VMDK grain directory lies past the end of the file');
  }
  const name = lineValue(text, 'parentFileNameHint');
  const layout = {
    size,
    grainSize,
    directory,
    entriesPerTable,
    zeroGrains: (flags & FLAG.ZERO_GRAIN) !== 0,
    compressed: isCompressed,
    cid: Number.parseInt(lineValue(text, 'CID') ?? '', 16),
    parentCid: Number.parseInt(lineValue(text, 'parentCID') ?? '', 16),
    createType: lineValue(text, 'createType') ?? '',
  };
  if (!(layout.cid <= 0xffff_ffff && layout.parentCid <= 0xffff_ffff)) {
    throw invalid('invalid VMDK image descriptor');
  }
  return { layout, backing: name === undefined ? null : { name, format: 'vmdk' } };
}

type Header = ReturnType<typeof HEADER.read>;

function readHeader(storage: Storage): Header {
  const start = readUpTo(storage, 0, HEADER.size);
  if (start.bytes.toString('latin1').startsWith('# Disk Desc')) {
    const message = 'VMDK images of several files are not supported';
    throw new ImageError('unsupported', 'ENOTSUP', message, {
      limit: 'supported: monolithicSparse, streamOptimized',
    });
  }
  const header = checked(HEADER.read(readExactly(storage, 0, HEADER.size, 'VMDK header').view, 0));
  if (header.directory < AT_END) return header;
  // A marker, the header once more, and the marker of the end: each takes a sector.
  const position = storage.size() - 2 * SECTOR_SIZE;
  if (position < SECTOR_SIZE) throw invalid('VMDK footer is missing');
  return checked(HEADER.read(readExactly(storage, position, HEADER.size, 'VMDK footer').view, 0));
}

function checked(header: Header): Header {
  const { magic, version, flags, capacity, grain, entriesPerTable, compression } = header;
  if (Buffer.from(magic).toString('latin1') !== 'KDMV') throw invalid('Image not in VMDK format');
  if (version > MAX_VERSION || version === 0) {
    throw new ImageError('unsupported', 'ENOTSUP', `Unsupported VMDK version ${version}`);
  }
  if ((flags & FLAG.NEWLINES) !== 0) {
    const found = Buffer.from(header.newlines).toString('latin1');
    if (found !== NEWLINES) throw invalid('VMDK header was changed by a transfer as text');
  }
  if (grain < 1 || grain > MAX_GRAIN || !Number.isInteger(Math.log2(grain))) {
    throw invalid('Invalid granularity, image may be corrupt');
  }
  if (entriesPerTable < 1 || entriesPerTable > MAX_ENTRIES) throw invalid('L2 table size too big');
  if (capacity > Number.MAX_SAFE_INTEGER / SECTOR_SIZE) throw invalid('VMDK capacity is too large');
  const needed = FLAG.COMPRESSED | FLAG.MARKERS;
  if ((flags & FLAG.COMPRESSED) === 0) return header;
  if ((flags & needed) !== needed || compression !== DEFLATE) {
    const message = 'VMDK grains are compressed in an unknown way';
    throw new ImageError('unsupported', 'ENOTSUP', message);
  }
  return header;
}

function readDescriptor(storage: Storage, header: Header): string {
  const [offset, size] = [
    header.descriptorOffset * SECTOR_SIZE,
    header.descriptorSize * SECTOR_SIZE,
  ];
  if (offset === 0 || size > MAX_DESCRIPTOR || offset > Number.MAX_SAFE_INTEGER) {
    throw invalid('invalid VMDK image descriptor');
  }
  const text = readExactly(storage, offset, size, 'VMDK descriptor').bytes.toString('utf8');
  const end = text.indexOf('\0');
  return end < 0 ? text : text.slice(0, end);
}

/** The value of a line `key=value`, without its quotes. */
function lineValue(text: string, key: string): string | undefined {
  for (const line of text.split('\n')) {
    const at = line.indexOf('=');
    if (at < 0 || line.slice(0, at).trim() !== key) continue;
    const value = line.slice(at + 1).trim();
    return /^"[^"]*"$/.test(value) ? value.slice(1, -1) : value;
  }
  return undefined;
}
