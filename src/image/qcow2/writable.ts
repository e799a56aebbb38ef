/**
 * What an image must fulfil to be written to, beyond what reading asks for: on a wrong pointer, reading
 * fails with EIO or shows zeroes, and writing would destroy what lies there. Only the tables that
 * the header names are looked through; those below are checked as they are used.
 */
import { alignUp, TWO_32 } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { readExactly } from '../read-bytes.js';
import { hasBit } from './features.js';
import type { Qcow2Header } from './header.js';
import { hasReservedL1Bits, hostOffsetOf } from './l2.js';
import { INCOMPATIBLE, SNAPSHOT_HEADER } from './layout.js';
import type { Snapshot } from './snapshots.js';

/** Entries of an L1 or a refcount table are 64 bits. */
const ENTRY_SIZE = 8;
/** Bytes of a table that are read at once. */
const CHUNK_SIZE = 1 << 20;

/** Bits 0-8 of a refcount table entry. */
const REFCOUNT_RESERVED_LOW = 0x1ff;

/** A range of the file that the header names. Bytes. */
interface Table {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
}

/** Where the clusters lie that an entry of some table can name; null: the entry is invalid. */
type EntryOffset = (low: number, high: number) => number | null;

/** Refuses images that cannot be written to by what their header says. Throws an ImageError. */
export function checkFeaturesForWriting(header: Qcow2Header): void {
  const { incompatibleFeatures } = header;
  if (hasBit(incompatibleFeatures, INCOMPATIBLE.CORRUPT)) {
    const message = 'qcow2: Image is corrupt; cannot be opened read/write';
    throw new ImageError('corrupt', 'EACCES', message);
  }
}

/**
 * Refuses an image, with EIO, whose snapshots have a problem, whose tables do not lie in the file or
 * lie in each other, or whose L1 or refcount table has an entry that is invalid, leads past the
 * end of the file, or leads into one of these tables.
 */
export function checkTablesForWriting(
  storage: Storage,
  header: Qcow2Header,
  snapshots: readonly Snapshot[],
): void {
  for (const { name, problem } of snapshots) {
    if (problem !== null) throw refusal(storage, `Snapshot '${name}': ${problem}`);
  }
  const tables = tablesOf(header);
  const size = storage.size();
  for (const table of [...tables, ...snapshots.map(snapshotTable)]) {
    if (table.offset + table.size <= size) continue;
    throw refusal(storage, `${table.name} lies past the end of the file`, table.offset, {
      limit: `${table.size} bytes at 0x${table.offset.toString(16)}, file size ${size}`,
    });
  }
  checkOverlaps(storage, tables);
  const [, l1Table, refcountTable] = tables;
  checkEntries(storage, header, l1Table, tables, l1EntryOffset);
  checkEntries(storage, header, refcountTable, tables, refcountEntryOffset);
}

function tablesOf(header: Qcow2Header): readonly [Table, Table, Table, Table] {
  const { clusterSize } = header.geometry;
  return [
    // Reading asks for no more of the first cluster than the file has.
    { name: 'Header', offset: 0, size: header.headerLength },
    { name: 'L1 table', offset: header.l1TableOffset, size: header.l1Size * ENTRY_SIZE },
    {
      name: 'Refcount table',
      offset: header.refcountTableOffset,
      size: header.refcountTableClusters * clusterSize,
    },
    {
      name: 'Snapshot table',
      offset: header.nbSnapshots === 0 ? 0 : header.snapshotsOffset,
      size: header.nbSnapshots * SNAPSHOT_HEADER.size,
    },
  ];
}

function snapshotTable({ name, l1TableOffset, l1Size }: Snapshot): Table {
  const size = l1Size * ENTRY_SIZE;
  return { name: `L1 table of snapshot '${name}'`, offset: size === 0 ? 0 : l1TableOffset, size };
}

function checkOverlaps(storage: Storage, tables: readonly Table[]): void {
  const inOrder = tables.filter(({ size }) => size > 0).sort((a, b) => a.offset - b.offset);
  for (const [n, table] of inOrder.slice(1).entries()) {
    const before = inOrder[n]!;
    if (before.offset + before.size <= table.offset) continue;
    throw refusal(storage, `${table.name} overlaps with ${before.name}`, table.offset);
  }
}

function checkEntries(
  storage: Storage,
  { geometry: { clusterSize } }: Qcow2Header,
  table: Table,
  tables: readonly Table[],
  offsetOf: EntryOffset,
): void {
  // Only the file's last cluster may be partial.
  const end = alignUp(storage.size(), clusterSize);
  const taken = tables.filter(({ size }) => size > 0);
  for (let done = 0; done < table.size; done += CHUNK_SIZE) {
    const length = Math.min(CHUNK_SIZE, table.size - done);
    const { view } = readExactly(storage, table.offset + done, length, table.name);
    for (let at = 0; at < length; at += ENTRY_SIZE) {
      const high = view.getUint32(at);
      const low = view.getUint32(at + 4);
      if ((high | low) === 0) continue;
      const offset = offsetOf(low, high);
      const problem =
        (offset === null && 'is invalid') ||
        (offset! % clusterSize !== 0 && 'is not cluster-aligned') ||
        (offset! + clusterSize > end && 'leads past the end of the file') ||
        (taken.some((other) => overlaps(other, offset!, clusterSize)) && 'leads into metadata');
      if (problem === false) continue;
      const index = (done + at) / ENTRY_SIZE;
      const entry = (BigInt(high) << 32n) | BigInt(low);
      throw refusal(storage, `${table.name} entry ${index} ${problem}`, table.offset + done + at, {
        limit: `0x${entry.toString(16)}`,
      });
    }
  }
}

function overlaps(table: Table, offset: number, size: number): boolean {
  return table.offset < offset + size && offset < table.offset + table.size;
}

function l1EntryOffset(low: number, high: number): number | null {
  if (hasReservedL1Bits(low, high)) return null;
  const offset = hostOffsetOf(low, high);
  // COPIED without a table: QEMU aborts on writing below it.
  return offset === 0 || offset > Number.MAX_SAFE_INTEGER ? null : offset;
}

function refcountEntryOffset(low: number, high: number): number | null {
  if ((low & REFCOUNT_RESERVED_LOW) !== 0) return null;
  const offset = high * TWO_32 + low;
  return offset > Number.MAX_SAFE_INTEGER ? null : offset;
}

function refusal(
  storage: Storage,
  problem: string,
  offset?: number,
  context: { limit?: string } = {},
): ImageError {
  const place = offset === undefined ? {} : { offset };
  const message = `${problem}; cannot be opened read/write`;
  return new ImageError('corrupt', 'EIO', message, { path: storage.name, ...place, ...context });
}
