/** Looks whether each grain lies in its file. The first that does not ends the check, as an error. */
import { type ErrnoName, ERRNO, ImageError, isExpected } from '../../errors.js';
import { strerror } from '../../sys/libc.js';
import type { Storage } from '../../storage/storage.js';
import type { BlockMapping } from '../block-mapping.js';
import { type CheckResult, NOTHING_FOUND, type ReportFormat } from '../check-result.js';
import { ClusterSet } from '../cluster-set.js';
import { EXTENT, Extent, SECTOR_SIZE } from '../extent.js';
import type { FormatSource } from '../format.js';
import type { DiskExtent, VmdkLayout } from './layout.js';
import { extentMapping, type FindTable, grainTables } from './mapping.js';

/** Tells what is wrong with the grain at a byte of the extent; answers the error that ends the check. */
type Wrong = (offset: number, kind: 'grain-unknown' | 'grain-outside') => ImageError;

export function checkVmdk(
  { extents }: VmdkLayout,
  source: FormatSource,
  report: ReportFormat,
): CheckResult {
  let start = 0;
  for (const extent of extents) {
    const wrong: Wrong = (offset, kind) => {
      report({ kind, sector: (start + offset) / SECTOR_SIZE });
      return checkEnded(kind === 'grain-unknown' ? 'EPERM' : 'EINVAL');
    };
    checkExtent(extent, source, wrong);
    start += extent.body.size;
  }
  return NOTHING_FOUND;
}

function checkExtent(extent: DiskExtent, source: FormatSource, wrong: Wrong): void {
  const { body } = extent;
  const mapping = extentMapping(extent, source);
  const findTable = grainTables(extent, source);
  if (findTable === null || body.kind === 'flat') {
    // One grain, as it were, of which only the start counts.
    checkRange(mapping, [0, Math.min(body.size, 1)], body.size, wrong);
    return;
  }
  const { size, grainSize, entriesPerTable } = body;
  const covered = grainSize * entriesPerTable;
  const entrySize = body.kind === 'sesparse' ? 8 : 4;
  const isDone = seenTables(mapping.storage, findTable, entriesPerTable * entrySize);
  for (let index = 0; index * covered < size; index++) {
    const from = index * covered;
    const to = Math.min(size, from + covered);
    if (!isDone(index, to - from < covered)) checkRange(mapping, [from, to], grainSize, wrong);
  }
}

/**
 * Whether a table needs no look: there is none, it lies in a hole, or it was looked at before, as a directory may
 * name one table as often as it has entries. Of a `partial` one not all is looked at.
 */
function seenTables(storage: Storage, findTable: FindTable, tableSize: number) {
  const seen = new ClusterSet();
  const fileSize = storage.size();
  return (index: number, partial: boolean): boolean => {
    let table: number;
    try {
      table = findTable(index);
    } catch (error) {
      if (!isExpected(error)) throw error;
      return false;
    }
    if (table === 0) return true;
    const end = table + tableSize;
    if (partial || end > fileSize) return false;
    const sector = table / SECTOR_SIZE;
    if (seen.has(sector) || storage.nextData(table, end) >= end) return true;
    // Who finds something wrong in it ends the check.
    seen.add(sector);
    return false;
  };
}

/** Of the grains in a range of the extent. */
function checkRange(
  mapping: BlockMapping,
  [from, to]: readonly [number, number],
  grain: number,
  wrong: Wrong,
): void {
  const file = mapping.storage.size();
  const found = new Extent();
  for (let offset = from; offset < to; offset += found.length) {
    try {
      mapping.map(offset, to - offset, found);
    } catch (error) {
      if (!isExpected(error)) throw error;
      throw wrong(offset, 'grain-unknown');
    }
    if (found.kind === EXTENT.COMPRESSED) {
      if (found.hostOffset >= file) throw wrong(offset, 'grain-outside');
    } else if (found.kind === EXTENT.DATA) {
      // The first grain of the run that begins behind the end.
      const inside = Math.max(0, file - found.hostOffset);
      const first = Math.ceil(inside / grain) * grain;
      if (first < found.length) throw wrong(offset + first, 'grain-outside');
    }
  }
}

function checkEnded(code: ErrnoName): ImageError {
  return new ImageError('corrupt', code, strerror(ERRNO[code]), { operation: 'check' });
}
