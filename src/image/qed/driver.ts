/** QED: two levels of tables, each of several clusters; no refcounts, no snapshots, nothing compressed. */
import { isAligned, TWO_32 } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import { BlockMapping, type FindBlock } from '../block-mapping.js';
import { EXTENT } from '../extent.js';
import { defineFormat, type FormatParts, type FormatSource } from '../format.js';
import type { MutableStorage } from '../../storage/storage.js';
import { TableSlices } from '../table-slices.js';
import { checkQed } from './check.js';
import {
  clearAutoclear,
  ENTRY_SIZE,
  FEATURE,
  MAGIC,
  type QedHeader,
  readHeader,
  ZERO_CLUSTER,
} from './header.js';
import { QedWriter } from './writer.js';

export const QED = defineFormat<QedHeader>({
  format: 'qed',
  tableOrder: 'little',
  open: (storage, { unfinished }) => {
    const layout = readHeader(storage, unfinished);
    const { size, clusterSize, backing, features } = layout;
    const dirty = (features & FEATURE.NEED_CHECK) !== 0n;
    return { facts: { size, clusterSize, backing, dirty, encrypted: false }, layout };
  },
  mapping: (layout, source) => {
    const { clusterSize } = layout;
    const { storage, disk } = source;
    const find = finder(layout, source);
    return new BlockMapping({
      storage,
      disk: disk ?? layout,
      blockSize: clusterSize,
      unit: clusterSize,
      find,
    });
  },
  check: (layout, { storage }, _report, fix) => checkQed(storage, layout, fix),
  prepare: prepareQed,
  writer: (layout, target) => new QedWriter(layout, target),
  magic: MAGIC,
});

/**
 * As QEMU: features that are not known end with the opening, and what is wrong with tables of an image that was
 * not closed is put right.
 */
function prepareQed(
  storage: MutableStorage,
  { facts, layout }: FormatParts & { readonly layout: QedHeader },
): FormatParts {
  clearAutoclear(storage);
  if (!facts.dirty) return { facts, layout };
  const { corruptions } = checkQed(storage, layout, true);
  if (corruptions === 0) return { facts: { ...facts, dirty: false }, layout };
  const message = `${storage.name}: image was not closed cleanly, and cannot be repaired`;
  throw new ImageError('corrupt', 'EIO', message, { limit: `${corruptions} errors are left` });
}

function finder(header: QedHeader, { storage, cache, file }: FormatSource): FindBlock {
  const { l1TableOffset, tableBytes, clusterSize, headerBytes } = header;
  const tables = new TableSlices(cache, file);
  const entries = tableBytes / ENTRY_SIZE;
  const offsetAt = (position: number): number => {
    tables.look64(position);
    return tables.high * TWO_32 + tables.low;
  };
  const check = (offset: number, what: string, position: number): void => {
    if (offset >= headerBytes && offset <= Number.MAX_SAFE_INTEGER) {
      if (isAligned(offset, clusterSize)) return;
    }
    const place = `entry at 0x${position.toString(16)}`;
    const message = `${storage.name}: ${what} offset 0x${offset.toString(16)} is invalid (${place})`;
    throw new ImageError('corrupt', 'EIO', message, { path: storage.name, offset: position });
  };
  return (block, found) => {
    const l1Index = Math.floor(block / entries);
    const index = block - l1Index * entries;
    const l1Position = l1TableOffset + l1Index * ENTRY_SIZE;
    const l2Table = offsetAt(l1Position);
    found.kind = EXTENT.UNALLOCATED;
    found.run = entries - index;
    if (l2Table === 0) return;
    check(l2Table, 'L2 table', l1Position);
    const position = l2Table + index * ENTRY_SIZE;
    const offset = offsetAt(position);
    found.run = 1;
    if (offset === 0) return;
    if (offset === ZERO_CLUSTER) {
      found.kind = EXTENT.ZERO;
      return;
    }
    check(offset, 'cluster', position);
    found.kind = EXTENT.DATA;
    found.hostOffset = offset;
  };
}
