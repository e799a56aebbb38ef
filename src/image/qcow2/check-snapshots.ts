/**
 * The snapshot table as a check reads it: whatever can be read of it is taken, and what QEMU does not take
 * is left out where that is asked for. Entries keep their bytes, so that the table can be written anew.
 */
import { alignUp } from '../../codec/bits.js';
import { type ErrnoName, ImageError } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import type { Report, SnapshotFinding } from './check-findings.js';
import type { Qcow2Header } from './header.js';
import { LIMIT, SNAPSHOT_EXTRA, SNAPSHOT_HEADER } from './layout.js';
import type { SnapshotTables } from './references.js';

/** Bytes of extra data that an entry of version 3 has at least. */
const LEAST_EXTRA = SNAPSHOT_EXTRA.offsets.icount;
const NO_ICOUNT = 2n ** 64n - 1n;
const MAX_TABLE_OFFSET = 2 ** 63;
/** Bytes of a table, with what is left out of it. */
const MAX_TABLE_SIZE = 2 ** 31 - 1;

interface CheckedEntry extends SnapshotTables {
  /** The fixed part, as it is. */
  readonly fixed: Buffer;
  readonly extra: Buffer;
  readonly strings: Buffer;
}

export interface CheckedTable {
  readonly entries: readonly CheckedEntry[];
  /** Bytes that the table takes. */
  readonly size: number;
  /** Things that are wrong in it; they are right once it is written anew. */
  readonly problems: number;
}

/**
 * Reads the table of the image. Throws EFBIG or EINVAL where it is none that QEMU reads; with `repairs`,
 * what is too much is left out instead.
 */
export function readCheckedTable(
  storage: Storage,
  header: Qcow2Header,
  repairs: boolean,
  report: Report<SnapshotFinding>,
): CheckedTable {
  const { nbSnapshots, snapshotsOffset } = header;
  let problems = 0;
  const discard = (count: number, tooBig: boolean): void => {
    report({ kind: 'snapshots-discarded', count, tooBig });
    problems += count;
  };
  const overhanging = Math.max(0, nbSnapshots - LIMIT.MAX_SNAPSHOTS);
  if (overhanging > 0 && repairs) discard(overhanging, false);
  else if (overhanging > 0) {
    throw refusal(
      'EFBIG',
      'ERROR snapshot table too large',
      `all ${overhanging} overhanging snapshots`,
    );
  }
  const count = nbSnapshots - overhanging;
  if (snapshotsOffset % header.geometry.clusterSize !== 0 || snapshotsOffset >= MAX_TABLE_OFFSET) {
    const context = { operation: 'check' };
    throw new ImageError('invalid', 'EINVAL', 'ERROR snapshot table offset invalid', context);
  }
  const entries: CheckedEntry[] = [];
  let end = 0;
  /** Of the table as it would be written. */
  let length = 0;
  for (let index = 0; index < count; index++) {
    const at = alignUp(end, 8);
    const read = readEntry(storage, snapshotsOffset + at, index, repairs, report);
    problems += read.problems;
    const { fixed, extra, strings } = read.entry;
    const extraSize = Math.max(extra.length, SNAPSHOT_EXTRA.size);
    length = alignUp(length, 8) + fixed.length + extraSize + strings.length;
    const next = at + read.size;
    if (length > LIMIT.MAX_SNAPSHOT_TABLE_SIZE || next > MAX_TABLE_SIZE) {
      if (!repairs) throw tooBig(count - index);
      discard(count - index, true);
      break;
    }
    end = next;
    entries.push(read.entry);
  }
  if (header.version >= 3) {
    for (const [index, { extra }] of entries.entries()) {
      if (extra.length >= LEAST_EXTRA) continue;
      report({ kind: 'snapshot-incomplete', index, repairing: repairs });
      problems++;
    }
  }
  return { entries, size: end, problems };
}

function readEntry(
  storage: Storage,
  offset: number,
  index: number,
  repairs: boolean,
  report: Report<SnapshotFinding>,
): { entry: CheckedEntry; size: number; problems: number } {
  const fixed = readPadded(storage, offset, SNAPSHOT_HEADER.size);
  const view = viewOf(fixed);
  const { l1Size, idStrSize, nameSize, extraDataSize } = SNAPSHOT_HEADER.read(view, 0);
  const tooMuch = extraDataSize > LIMIT.MAX_SNAPSHOT_EXTRA_DATA;
  if (tooMuch) {
    const problem = `Too much extra metadata in snapshot table entry ${index}`;
    if (!repairs) throw refusal('EFBIG', `${READ_FAILED}: ${problem}`, 'this extra metadata');
    report({ kind: 'snapshot-extra-discarded', index, size: extraDataSize });
  }
  const extraSize = tooMuch ? SNAPSHOT_EXTRA.size : extraDataSize;
  const extra = readPadded(storage, offset + fixed.length, extraSize);
  const stringsAt = offset + fixed.length + extraDataSize;
  const strings = readPadded(storage, stringsAt, idStrSize + nameSize);
  const entry = {
    id: cString(strings.subarray(0, idStrSize)),
    name: cString(strings.subarray(idStrSize)),
    l1TableOffset: view.getBigUint64(SNAPSHOT_HEADER.offsets.l1TableOffset),
    l1Size,
    fixed,
    extra,
    strings,
  };
  const size = fixed.length + extraDataSize + strings.length;
  return { entry, size, problems: tooMuch ? 1 : 0 };
}

const READ_FAILED = 'ERROR failed to read the snapshot table';

function refusal(code: ErrnoName, message: string, what: string): ImageError {
  const hint = `You can force-remove ${what} with qemu-img check -r all`;
  return new ImageError('invalid', code, message, { hint, operation: 'check' });
}

function tooBig(count: number): ImageError {
  return refusal(
    'EFBIG',
    `${READ_FAILED}: Snapshot table is too big`,
    `all ${count} overhanging snapshots`,
  );
}

/** The entries as one table, each with all extra data that QEMU knows. */
export function repairedTable({ entries }: CheckedTable, diskSize: number): IoBuffer {
  const parts = entries.map((entry) => repairedEntry(entry, diskSize));
  const table = new IoBuffer(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    table.bytes.set(part, at);
    at += part.length;
  }
  return table;
}

function repairedEntry({ fixed, extra, strings }: CheckedEntry, diskSize: number): Buffer {
  const whole = Buffer.alloc(Math.max(SNAPSHOT_EXTRA.size, extra.length));
  const view = viewOf(whole);
  const { vmStateSize } = SNAPSHOT_HEADER.read(viewOf(fixed), 0);
  SNAPSHOT_EXTRA.write(view, 0, { vmStateSizeLarge: vmStateSize, diskSize, icount: NO_ICOUNT });
  // Whole fields: of one that is cut off, nothing is known.
  extra.copy(whole, 0, 0, extra.length >= whole.length ? extra.length : extra.length & ~7);
  const used = fixed.length + whole.length + strings.length;
  const bytes = Buffer.concat([fixed, whole, strings], alignUp(used, 8));
  SNAPSHOT_HEADER.set(viewOf(bytes), 0, 'extraDataSize', whole.length);
  return bytes;
}

/** Zeroes where the file ends before. */
function readPadded(storage: Storage, position: number, length: number): Buffer {
  const buffer = new IoBuffer(length);
  if (position < storage.size()) storage.read(buffer, 0, length, position);
  return buffer.bytes;
}

function cString(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return (end < 0 ? bytes : bytes.subarray(0, end)).toString();
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
