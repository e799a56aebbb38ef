/** VHD, which QEMU calls vpc: fixed (the disk, and a footer behind it), and dynamic (a table of blocks). */
import { alignUp, divCeil } from '../codec/bits.js';
import { bytes, struct, u16, u32, u64, u8 } from '../codec/struct.js';
import { ImageError, invalid } from '../errors.js';
import type { Storage } from '../storage/storage.js';
import { BlockMapping } from './block-mapping.js';
import { EXTENT, SECTOR_SIZE } from './extent.js';
import { defineFormat, type FormatSource, PLAIN_FACTS } from './format.js';
import { readExactly } from './read-bytes.js';
import type { VhdSize } from './spec.js';
import { TableSlices } from './table-slices.js';

const FOOTER = struct('VHD footer', 'big', {
  cookie: bytes(8),
  features: u32,
  version: u32,
  dataOffset: u64,
  timestamp: u32,
  creatorApp: bytes(4),
  major: u16,
  minor: u16,
  creatorOs: bytes(4),
  originalSize: u64,
  currentSize: u64,
  cylinders: u16,
  heads: u8,
  sectors: u8,
  type: u32,
  checksum: u32,
  uuid: bytes(16),
  savedState: u8,
  reserved: bytes(427),
});

const DYNAMIC = struct('VHD dynamic header', 'big', {
  cookie: bytes(8),
  dataOffset: u64,
  tableOffset: u64,
  version: u32,
  entries: u32,
  blockSize: u32,
  checksum: u32,
  parentUuid: bytes(16),
  parentTimestamp: u32,
  reserved: u32,
  parentName: bytes(512),
  rest: bytes(448),
});

const TYPE = { FIXED: 2, DYNAMIC: 3, DIFFERENCING: 4 } as const;
const NO_BLOCK = 0xffff_ffff;
const ENTRY_SIZE = 4;
/** What the geometry can tell at most: larger disks say their size. */
const MAX_GEOMETRY = 65535 * 16 * 255;
const MAX_SECTORS = 0xff00_0000;
/** Programs that mean the size they state, and not the geometry. */
const TRUE_SIZES = ['win ', 'qem2', 'd2v ', 'CTXS', 'tap\0', 'wa\0\0'];
/** A fixed disk has no blocks; one look tells so much of it. */
const FIXED_BLOCK = 1 << 21;

interface Layout {
  readonly size: number;
  /** Null of a fixed disk. */
  readonly table: {
    readonly offset: number;
    readonly blockSize: number;
    /** Bytes before each block's data. */
    readonly bitmapSize: number;
  } | null;
}

export const VPC = defineFormat<Layout>({
  format: 'vpc',
  tableOrder: 'big32',
  open: (storage, { sizeFrom }) => {
    const layout = readLayout(storage, sizeFrom);
    const clusterSize = layout.table?.blockSize ?? null;
    const hasHostHoles = layout.table === null;
    return { facts: { ...PLAIN_FACTS, size: layout.size, clusterSize, hasHostHoles }, layout };
  },
  mapping: (layout, source) => {
    const { storage } = source;
    const parts = { storage, disk: layout, unit: SECTOR_SIZE };
    if (layout.table !== null) return dynamicMapping(layout.table, parts, source);
    return new BlockMapping({
      ...parts,
      blockSize: FIXED_BLOCK,
      find: (block, found) => {
        found.run = 1;
        found.kind = EXTENT.DATA;
        found.hostOffset = block * FIXED_BLOCK;
      },
    });
  },
});

function dynamicMapping(
  { offset, blockSize, bitmapSize }: NonNullable<Layout['table']>,
  parts: { storage: Storage; disk: Layout; unit: number },
  { cache, file }: FormatSource,
): BlockMapping {
  const tables = new TableSlices(cache, file);
  return new BlockMapping({
    ...parts,
    blockSize,
    find: (block, found) => {
      const entry = tables.look32(offset + block * ENTRY_SIZE);
      found.run = 1;
      found.kind = entry === NO_BLOCK ? EXTENT.ZERO : EXTENT.DATA;
      found.hostOffset = entry * SECTOR_SIZE + bitmapSize;
    },
  });
}

function readLayout(storage: Storage, sizeFrom: VhdSize | undefined): Layout {
  const first = readFooter(storage, 0);
  const end = storage.size() - FOOTER.size;
  const footer = first ?? (end >= 0 ? readFooter(storage, end) : null);
  if (footer === null || (first === null && footer.type !== TYPE.FIXED)) {
    throw invalid('invalid VPC image');
  }
  const size = sizeOf(footer, sizeFrom);
  if (footer.type === TYPE.FIXED) return { size, table: null };
  if (footer.type === TYPE.DIFFERENCING) throw overParent(storage, footer);
  if (footer.type !== TYPE.DYNAMIC) {
    const message = `VHD images of type ${footer.type} are not supported`;
    throw new ImageError('unsupported', 'ENOTSUP', message);
  }
  const { dataOffset } = footer;
  if (dataOffset > Number.MAX_SAFE_INTEGER) throw invalid('Invalid dynamic header offset');
  const { view, bytes: raw } = readExactly(storage, dataOffset, DYNAMIC.size, 'dynamic header');
  if (raw.toString('latin1', 0, 8) !== 'cxsparse') {
    throw invalid('Invalid header magic');
  }
  const { tableOffset, entries, blockSize } = DYNAMIC.read(view, 0);
  if (blockSize < SECTOR_SIZE || !Number.isInteger(Math.log2(blockSize))) {
    throw invalid(`Invalid block size ${blockSize}`);
  }
  if (entries < divCeil(size, blockSize)) {
    throw invalid('Page table too small');
  }
  const inFile = tableOffset + entries * ENTRY_SIZE <= storage.size();
  if (!inFile || tableOffset % ENTRY_SIZE !== 0) {
    throw invalid('Invalid block allocation table offset');
  }
  const bitmapSize = alignUp(Math.ceil(blockSize / SECTOR_SIZE / 8), SECTOR_SIZE);
  return { size, table: { offset: tableOffset, blockSize, bitmapSize } };
}

/** QEMU reads zeroes where the parent's bytes should be. */
function overParent(storage: Storage, { dataOffset }: Footer): ImageError {
  const { view } = readExactly(storage, dataOffset, DYNAMIC.size, 'dynamic header');
  const [name = ''] = Buffer.from(DYNAMIC.read(view, 0).parentName)
    .swap16()
    .toString('utf16le')
    .split('\0');
  const message = `VHD images with a parent ('${name}') are not supported`;
  return new ImageError('unsupported', 'ENOTSUP', message);
}

type Footer = ReturnType<typeof FOOTER.read>;

/** The footer at `position`; null where there is none. */
function readFooter(storage: Storage, position: number): Footer | null {
  const buffer = readExactly(storage, position, FOOTER.size, 'VHD footer');
  if (buffer.bytes.toString('latin1', 0, 8) !== 'conectix') return null;
  const footer = FOOTER.read(buffer.view, 0);
  let sum = 0;
  for (const byte of buffer.bytes) sum += byte;
  const { checksum } = footer;
  for (let shift = 0; shift < 32; shift += 8) sum -= (checksum >>> shift) & 0xff;
  if (~sum >>> 0 !== checksum) throw invalid('Incorrect header checksum');
  return footer;
}

function sizeOf(footer: Footer, sizeFrom: VhdSize | undefined): number {
  const geometry = footer.cylinders * footer.heads * footer.sectors;
  const app = Buffer.from(footer.creatorApp).toString('latin1');
  const means = sizeFrom ?? (TRUE_SIZES.includes(app) ? 'current_size' : 'chs');
  const isStated = means === 'current_size' || geometry === MAX_GEOMETRY;
  const sectors = isStated ? Math.floor(footer.currentSize / SECTOR_SIZE) : geometry;
  if (sectors > MAX_SECTORS) {
    throw new ImageError('unsupported', 'EFBIG', 'VHD images of more than 2040 GiB are not valid');
  }
  return sectors * SECTOR_SIZE;
}
