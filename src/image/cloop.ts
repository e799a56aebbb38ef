/** The compressed loop device's image of version 2: blocks of zlib data, and a table of where each begins. */
import { inflateSync } from 'node:zlib';
import { struct, u32 } from '../codec/struct.js';
import { TWO_32 } from '../codec/bits.js';
import { ImageError, invalid } from '../errors.js';
import type { Storage } from '../storage/storage.js';
import { BlockMapping } from './block-mapping.js';
import { EXTENT, SECTOR_SIZE } from './extent.js';
import { defineFormat, PLAIN_FACTS } from './format.js';
import { readExactly } from './read-bytes.js';
import { TableSlices } from './table-slices.js';

/** What it begins with: a script that mounts it. */
export const CLOOP_START =
  '#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n';
const HEADER_AT = 128;
const HEADER = struct('cloop header', 'big', { blockSize: u32, blocks: u32 });
const TABLE = HEADER_AT + HEADER.size;
const ENTRY_SIZE = 8;
/** A block is held in memory. */
const MAX_BLOCK = 64 << 20;
const MAX_TABLE = 512 << 20;

interface Layout {
  readonly size: number;
  readonly blockSize: number;
}

export const CLOOP = defineFormat<Layout>({
  format: 'cloop',
  tableOrder: 'big64',
  open: (storage) => {
    const layout = readLayout(storage);
    return { facts: { ...PLAIN_FACTS, size: layout.size, dirtyUntold: true }, layout };
  },
  mapping: (layout, { storage, cache, file }) => {
    const tables = new TableSlices(cache, file);
    const look = (index: number) => {
      tables.look64(TABLE + index * ENTRY_SIZE);
      return tables.high * TWO_32 + tables.low;
    };
    return new BlockMapping({
      storage,
      disk: layout,
      blockSize: layout.blockSize,
      unit: SECTOR_SIZE,
      find: (block, found) => {
        found.run = 1;
        found.kind = EXTENT.COMPRESSED;
        found.hostOffset = look(block);
        const end = look(block + 1);
        found.hostLength = end - found.hostOffset;
        if (found.hostLength >= 0 && found.hostLength <= 2 * MAX_BLOCK && end <= storage.size()) {
          return;
        }
        const place = `from byte ${found.hostOffset} to ${end}`;
        const limit = `file size ${storage.size()}, at most ${2 * MAX_BLOCK} bytes`;
        throw corrupt(storage, `block ${block} lies ${place}`, limit);
      },
      decompress: decompressor(storage, layout.blockSize),
    });
  },
});

function readLayout(storage: Storage): Layout {
  const { view } = readExactly(storage, HEADER_AT, HEADER.size, 'cloop header');
  const { blockSize, blocks } = HEADER.read(view, 0);
  if (blockSize === 0) throw invalid('block_size cannot be zero');
  if (blockSize % SECTOR_SIZE !== 0) {
    throw invalid(`block_size ${blockSize} must be a multiple of ${SECTOR_SIZE}`);
  }
  if (blockSize > MAX_BLOCK) throw invalid(`block_size ${blockSize} must be 64 MB or less`);
  const end = TABLE + (blocks + 1) * ENTRY_SIZE;
  if (end - TABLE > MAX_TABLE) {
    throw invalid('image requires too many offsets, try increasing block size');
  }
  if (end > storage.size()) {
    throw invalid(`cloop table of blocks ends at byte ${end}, past the end of the file`);
  }
  return { size: blocks * blockSize, blockSize };
}

/** Keeps the last block: reads go through one from start to end. */
function decompressor(storage: Storage, blockSize: number) {
  let kept = -1;
  let block: Uint8Array = new Uint8Array(0);
  return (offset: number, length: number): Uint8Array => {
    if (offset === kept) return block;
    const packed = readExactly(storage, offset, length, 'compressed block');
    kept = -1;
    const place = `the block at byte ${offset}`;
    try {
      block = inflateSync(packed.bytes, { maxOutputLength: blockSize });
    } catch (error) {
      const why = error instanceof Error ? error.message : 'not zlib data';
      throw corrupt(storage, `cannot decompress ${place}: ${why}`);
    }
    if (block.length !== blockSize) {
      throw corrupt(storage, `${place} holds ${block.length} bytes`, `blocks of ${blockSize}`);
    }
    kept = offset;
    return block;
  };
}

function corrupt({ name }: Storage, what: string, limit?: string): ImageError {
  const context = { path: name, ...(limit === undefined ? {} : { limit }) };
  return new ImageError('corrupt', 'EIO', `${name}: ${what}`, context);
}
