/** Bochs' growing disk: a catalog of extents, each with a bitmap of the sectors that it has. */
import { divCeil, runOfBits } from '../codec/bits.js';
import { bytes, struct, u32, u64 } from '../codec/struct.js';
import { ImageError, invalid } from '../errors.js';
import type { Storage } from '../storage/storage.js';
import { BlockMapping } from './block-mapping.js';
import { EXTENT, SECTOR_SIZE } from './extent.js';
import { defineFormat, PLAIN_FACTS } from './format.js';
import { readExactly } from './read-bytes.js';
import { TableSlices } from './table-slices.js';

/** `disk`: bytes of the disk, in images of version 1; of version 2, they stand four bytes later. */
const HEADER = struct('Bochs header', 'little', {
  magic: bytes(32),
  type: bytes(16),
  subtype: bytes(16),
  version: u32,
  headerSize: u32,
  catalogEntries: u32,
  bitmapSize: u32,
  extentSize: u32,
  disk: u64,
});
const DISK_AT = { 1: HEADER.size - 8, 2: HEADER.size - 4 } as const;
const HEADER_SIZE = 512;
const VERSIONS = new Map<number, 1 | 2>([
  [0x1_0000, 1],
  [0x2_0000, 2],
]);
const [MAGIC, TYPE, SUBTYPE] = ['Bochs Virtual HD Image', 'Redolog', 'Growing'];
const MAX_ENTRIES = 0x10_0000;
const MAX_EXTENT = 0x80_0000;
const ENTRY_SIZE = 4;
const NO_EXTENT = 0xffff_ffff;
/** Sectors that a word of a bitmap tells of. */
const WORD_BITS = 32;

interface Layout {
  readonly size: number;
  readonly catalog: number;
  /** Where the first extent's bitmap is. */
  readonly data: number;
  readonly extentSize: number;
  /** Bytes before an extent's sectors. */
  readonly bitmapSpace: number;
}

export const BOCHS = defineFormat<Layout>({
  format: 'bochs',
  tableOrder: 'little',
  open: (storage) => {
    const layout = readLayout(storage);
    return { facts: { ...PLAIN_FACTS, size: layout.size, dirtyUntold: true }, layout };
  },
  mapping: (layout, { storage, cache, file }) => {
    const { catalog, data, extentSize, bitmapSpace } = layout;
    const tables = new TableSlices(cache, file);
    const sectors = extentSize / SECTOR_SIZE;
    return new BlockMapping({
      storage,
      disk: layout,
      blockSize: SECTOR_SIZE,
      unit: SECTOR_SIZE,
      find: (sector, found) => {
        const index = Math.floor(sector / sectors);
        const within = sector - index * sectors;
        const entry = tables.look32(catalog + index * ENTRY_SIZE);
        found.kind = EXTENT.ZERO;
        found.run = sectors - within;
        if (entry === NO_EXTENT) return;
        const start = data + entry * (bitmapSpace + extentSize);
        if (start + bitmapSpace > storage.size()) throw outside(storage, index, start);
        const bit = within % WORD_BITS;
        const word = tables.look32(start + (within - bit) / 8) >>> bit;
        const isThere = (word & 1) !== 0;
        if (isThere) found.kind = EXTENT.DATA;
        found.hostOffset = start + bitmapSpace + within * SECTOR_SIZE;
        // As many as are alike in this word.
        const alike = runOfBits(isThere ? word : ~word, 0);
        found.run = Math.min(alike, WORD_BITS - bit, found.run);
      },
    });
  },
});

function outside({ name }: Storage, extent: number, offset: number): ImageError {
  const message = `${name}: extent ${extent} lies past the end of file`;
  const context = { path: name, offset, limit: `byte ${offset}` };
  return new ImageError('corrupt', 'EIO', message, context);
}

function readLayout(storage: Storage): Layout {
  const { view } = readExactly(storage, 0, HEADER_SIZE, 'Bochs header');
  const header = HEADER.read(view, 0);
  const version = versionOf(header);
  if (version === null) throw invalid('Image not in Bochs format');
  const { headerSize, catalogEntries, bitmapSize, extentSize } = header;
  if (catalogEntries > MAX_ENTRIES) {
    const limit = `at most ${MAX_ENTRIES} entries`;
    throw new ImageError('unsupported', 'EFBIG', 'Catalog size is too large', { limit });
  }
  if (extentSize < SECTOR_SIZE) throw invalid(`Extent size must be at least ${SECTOR_SIZE}`);
  if (!Number.isInteger(Math.log2(extentSize))) {
    throw invalid(`Extent size ${extentSize} is not a power of two`);
  }
  if (extentSize > MAX_EXTENT) throw invalid(`Extent size ${extentSize} is too large`);
  const at = DISK_AT[version];
  const disk = view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
  const size = disk - (disk % SECTOR_SIZE);
  if (catalogEntries < divCeil(size, extentSize)) {
    throw invalid('Catalog size is too small for this disk size');
  }
  if (bitmapSize < extentSize / SECTOR_SIZE / 8 || headerSize % ENTRY_SIZE !== 0) {
    throw invalid('Bochs header is invalid');
  }
  const data = headerSize + catalogEntries * ENTRY_SIZE;
  if (data > storage.size()) {
    throw invalid(`Bochs catalog ends at byte ${data}, past the end of the file`);
  }
  const bitmapSpace = divCeil(bitmapSize, SECTOR_SIZE) * SECTOR_SIZE;
  return { size, catalog: headerSize, data, extentSize, bitmapSpace };
}

/** Whether a file that begins so is such an image. */
export function isBochs(start: Buffer): boolean {
  if (start.length < HEADER_SIZE) return false;
  return versionOf(HEADER.read(new DataView(start.buffer, start.byteOffset), 0)) !== null;
}

function versionOf(header: ReturnType<typeof HEADER.read>): 1 | 2 | null {
  const text = (field: Uint8Array) => Buffer.from(field).toString('latin1').split('\0')[0];
  if (text(header.magic) !== MAGIC || text(header.type) !== TYPE) return null;
  if (text(header.subtype) !== SUBTYPE) return null;
  return VERSIONS.get(header.version) ?? null;
}
