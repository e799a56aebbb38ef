/** Parallels' expanding disk (`.hds`): one table of blocks behind the header. */
import { alignUp, divCeil } from '../codec/bits.js';
import { bits64, bytes, struct, u32, u64 } from '../codec/struct.js';
import { ImageError, invalid } from '../errors.js';
import type { Storage } from '../storage/storage.js';
import { BlockMapping } from './block-mapping.js';
import { type CheckResult, NOTHING_FOUND, type ReportFormat } from './check-result.js';
import { EXTENT, SECTOR_SIZE } from './extent.js';
import { defineFormat, PLAIN_FACTS } from './format.js';
import { eachWord, readExactly } from './read-bytes.js';
import { TableSlices } from './table-slices.js';

const HEADER = struct('Parallels header', 'little', {
  magic: bytes(16),
  version: u32,
  heads: u32,
  cylinders: u32,
  tracks: u32,
  entries: u32,
  sectors: u64,
  inUse: u32,
  dataOffset: u32,
  flags: u32,
  extension: u64,
});
const EXTENSION = struct('Parallels format extension', 'little', {
  magic: bits64,
  checksum: bytes(16),
});
const FEATURE = struct('Parallels feature', 'little', {
  magic: bits64,
  flags: bits64,
  size: u32,
  unused: u32,
});

/** In the older one, entries of the table count sectors, and in the newer one, blocks. */
export const PARALLELS_MAGIC = { SECTORS: 'WithoutFreeSpace', BLOCKS: 'WithouFreSpacExt' } as const;
const VERSION = 2;
const IN_USE = 0x746f6e59;
const EXTENSION_MAGIC = 0xab234cef23dcea87n;
const NECESSARY = 1n;
const END_OF_FEATURES = 0n;
const BITMAPS = 0x20385fae252cb34an;
/** Sectors of a block, as QEMU bounds them. */
const MAX_TRACKS = Math.floor((2 ** 31 - 1) / 513);
const MAX_ENTRIES = Math.floor((2 ** 31 - 1) / 4);
const ENTRY_SIZE = 4;

interface Layout {
  readonly size: number;
  readonly blockSize: number;
  readonly entries: number;
  /** Bytes that an entry counts. */
  readonly entryUnit: number;
  readonly inUse: boolean;
}

export const PARALLELS = defineFormat<Layout>({
  format: 'parallels',
  tableOrder: 'little',
  open: (storage) => {
    const layout = readLayout(storage);
    const { size, inUse: dirty } = layout;
    return { facts: { ...PLAIN_FACTS, size, dirty, dirtyUntold: true }, layout };
  },
  mapping: (layout, { storage, cache, file }) => {
    const { blockSize, entries, entryUnit } = layout;
    const tables = new TableSlices(cache, file);
    return new BlockMapping({
      storage,
      disk: layout,
      blockSize,
      unit: blockSize,
      find: (block, found) => {
        // A table that is shorter than the disk is one of blocks without data.
        const isListed = block < entries;
        const entry = isListed ? tables.look32(HEADER.size + block * ENTRY_SIZE) : 0;
        found.run = isListed ? 1 : divCeil(layout.size, blockSize) - block;
        found.kind = entry === 0 ? EXTENT.UNALLOCATED : EXTENT.DATA;
        found.hostOffset = entry * entryUnit;
      },
    });
  },
  check: (layout, { storage }, report) => checkParallels(storage, layout, report),
});

function readLayout(storage: Storage): Layout {
  const header = HEADER.read(readExactly(storage, 0, HEADER.size, 'Parallels header').view, 0);
  const magic = Buffer.from(header.magic).toString('latin1');
  const isNewer = magic === PARALLELS_MAGIC.BLOCKS;
  if ((!isNewer && magic !== PARALLELS_MAGIC.SECTORS) || header.version !== VERSION) {
    throw invalid('Image not in Parallels format');
  }
  const { tracks, entries, inUse, extension } = header;
  if (tracks === 0) throw invalid('Invalid image: Zero sectors per track');
  if (tracks > MAX_TRACKS) throw invalid('Invalid image: Too big cluster');
  if (entries > MAX_ENTRIES) throw tooLarge('Catalog too large', `at most ${MAX_ENTRIES} entries`);
  const end = HEADER.size + entries * ENTRY_SIZE;
  if (end > storage.size()) {
    throw invalid(`Parallels block table ends at byte ${end}, past the end of the file`);
  }
  const sectors = isNewer ? header.sectors : header.sectors % 2 ** 32;
  const most = Math.floor(Number.MAX_SAFE_INTEGER / SECTOR_SIZE);
  if (sectors > most) throw tooLarge('Parallels disk is too large', `at most ${most} sectors`);
  const blockSize = tracks * SECTOR_SIZE;
  if (extension !== 0) checkExtension(storage, extension * SECTOR_SIZE, blockSize);
  return {
    size: sectors * SECTOR_SIZE,
    blockSize,
    entries,
    entryUnit: isNewer ? blockSize : SECTOR_SIZE,
    inUse: inUse === IN_USE,
  };
}

/** What is said of the image beside its blocks: a feature without which it cannot be read ends the opening. */
function checkExtension(storage: Storage, position: number, blockSize: number): void {
  const { view } = readExactly(storage, position, blockSize, 'Parallels format extension');
  const hex = (value: bigint) => `0x${value.toString(16)}`;
  const { magic } = EXTENSION.read(view, 0);
  if (magic !== EXTENSION_MAGIC) {
    const expected = `expected: ${hex(EXTENSION_MAGIC)}`;
    throw invalid(`Wrong parallels Format Extension magic: ${hex(magic)}, ${expected}`);
  }
  for (let at = EXTENSION.size; at + FEATURE.size <= blockSize; ) {
    const feature = FEATURE.read(view, at);
    if (feature.magic === END_OF_FEATURES) return;
    const isKnown = feature.magic === BITMAPS;
    if (!isKnown && (feature.flags & NECESSARY) !== 0n) {
      const message = `Parallels feature ${hex(feature.magic)} is not known`;
      throw new ImageError('unsupported', 'ENOTSUP', message);
    }
    at += FEATURE.size + alignUp(feature.size, 8);
  }
  throw invalid('Parallels format extension has no end');
}

/** Blocks that begin past the end of the file are errors, and so is that it was not closed. What lies behind all is lost. */
function checkParallels(storage: Storage, layout: Layout, report: ReportFormat): CheckResult {
  const { entries, entryUnit, blockSize, inUse } = layout;
  const fileSize = alignUp(storage.size(), SECTOR_SIZE);
  let corruptions = 0;
  const wrong: ReportFormat = (finding) => {
    corruptions++;
    report(finding);
  };
  if (inUse) wrong({ kind: 'parallels-in-use' });
  let [allocated, fragmented, last, previous] = [0, 0, 0, 0];
  eachWord(storage, HEADER.size, entries, 'block table', (entry, block) => {
    const offset = entry * entryUnit;
    if (offset !== 0) {
      if (offset > fileSize) wrong({ kind: 'parallels-outside', block });
      allocated++;
      last = Math.max(last, offset);
      if (previous !== 0 && previous + blockSize !== offset) fragmented++;
    }
    previous = offset;
  });
  const imageEndOffset = last + blockSize;
  const lost = Math.max(0, fileSize - imageEndOffset);
  if (lost > 0) report({ kind: 'parallels-lost', length: lost });
  return {
    ...NOTHING_FOUND,
    corruptions,
    leaks: divCeil(lost, blockSize),
    imageEndOffset,
    totalClusters: entries,
    allocatedClusters: allocated,
    fragmentedClusters: fragmented,
  };
}

function tooLarge(message: string, limit: string): ImageError {
  return new ImageError('unsupported', 'EFBIG', message, { limit });
}
