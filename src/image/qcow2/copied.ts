/**
 * The COPIED flags of the active L1 table and its L2 tables, compared with the counts: set exactly
 * where a cluster has one reference. Those of snapshots mean nothing.
 */
import type { Storage } from '../../storage/storage.js';
import type { IoBuffer } from '../../sys/io-buffer.js';
import { hasBit } from './features.js';
import type { Qcow2Header } from './header.js';
import { hostOffsetOf, isCompressed, withCopied } from './l2.js';
import { INCOMPATIBLE } from './layout.js';
import type { ReferenceCounts } from './reference-counts.js';
import { TableReader } from './table-reader.js';

/** A part of a table whose flags are right in `buffer` and wrong in the file at `position`. */
export type ReportFlags = (buffer: IoBuffer, at: number, length: number, position: number) => void;

/**
 * Compares all flags with `counts`, which found no problems, and answers how many are wrong. Calls
 * `report` for each part of a table, at most 2 MiB, that has wrong ones.
 */
export function compareCopied(
  storage: Storage,
  header: Qcow2Header,
  counts: ReferenceCounts,
  report: ReportFlags = () => {},
): number {
  const { geometry, l1Size, l1TableOffset } = header;
  const { clusterSize, l2EntrySize } = geometry;
  const externalData = hasBit(header.incompatibleFeatures, INCOMPATIBLE.DATA_FILE);
  const isSingle = (host: number) => host !== 0 && counts.count(host / clusterSize) === 1;
  const l2Reader = new TableReader(storage);
  let wrong = 0;

  /** An external data file's clusters count as single; its first has offset 0, and only the flag. */
  const l2Flag = (low: number, high: number): boolean | null => {
    if (isCompressed(high)) return false;
    const host = hostOffsetOf(low, high);
    if (externalData) return host === 0 ? null : true;
    return isSingle(host);
  };
  const compareL2 = (offset: number): void =>
    l2Reader.forEachBlock(offset, clusterSize, (length, position) => {
      wrong += correct(l2Reader.buffer, length, l2EntrySize, position, l2Flag, report);
    });
  const l1Reader = new TableReader(storage);
  l1Reader.forEachBlock(l1TableOffset, l1Size * 8, (length, position) => {
    const l1Flag = (low: number, high: number): boolean => {
      const host = hostOffsetOf(low, high);
      if (host !== 0) compareL2(host);
      return isSingle(host);
    };
    // `l1Flag` adds to `wrong`, too.
    const flags = correct(l1Reader.buffer, length, 8, position, l1Flag, report);
    wrong += flags;
  });
  return wrong;
}

/** Sets the flags right in the buffer's first `length` bytes. Null: the flag stays as it is. */
function correct(
  buffer: IoBuffer,
  length: number,
  entrySize: number,
  position: number,
  flagOf: (low: number, high: number) => boolean | null,
  report: ReportFlags,
): number {
  const { view } = buffer;
  let wrong = 0;
  let first = 0;
  let end = 0;
  for (let at = 0; at < length; at += entrySize) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if (high === 0 && low === 0) continue;
    const copied = flagOf(low, high);
    if (copied === null) continue;
    const right = withCopied(high, copied);
    if (right === high) continue;
    view.setUint32(at, right);
    if (wrong === 0) first = at;
    end = at + 8;
    wrong++;
  }
  if (wrong > 0) report(buffer, first, end - first, position + first);
  return wrong;
}
