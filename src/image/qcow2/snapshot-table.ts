/**
 * The snapshot table as it is written: entry by entry, each as its bytes, so that what is not known
 * here (further extra data) stays as it is.
 */
import { alignUp, TWO_32 } from '../../codec/bits.js';
import { ImageError } from '../../errors.js';
import { IoBuffer } from '../../sys/io-buffer.js';
import { readExactly } from '../read-bytes.js';
import { LIMIT, SNAPSHOT_EXTRA, SNAPSHOT_HEADER } from './layout.js';
import type { Snapshot } from './snapshots.js';
import type { Tables } from './tables.js';

/** Bytes of extra data that new entries have: the VM state's size, the disk's, no icount. */
const NEW_EXTRA_SIZE = SNAPSHOT_EXTRA.size;
/** Bytes of it that version 3 asks for. */
const LEAST_EXTRA_SIZE = SNAPSHOT_EXTRA.offsets.icount;
const NO_ICOUNT = 2n ** 64n - 1n;
const MAX_NAME_SIZE = 255;

/** One entry's bytes, padded to a multiple of 8. */
export type RawEntry = Buffer;

export interface NewSnapshot {
  readonly id: string;
  readonly name: string;
  readonly l1TableOffset: number;
  readonly l1Size: number;
  readonly diskSize: number;
  readonly vmStateSize: number;
  /** Since 1970. */
  readonly date: { readonly sec: number; readonly nsec: number };
  /** Nanoseconds. */
  readonly vmClock: bigint;
  readonly icount: bigint | null;
}

/** The entries of the table as it is in the file, in order. */
export function readRawEntries(tables: Tables): RawEntry[] {
  const { state, storage } = tables;
  const entries: RawEntry[] = [];
  let at = state.snapshotsOffset;
  for (let index = 0; index < state.nbSnapshots; index++) {
    const { view } = readExactly(storage, at, SNAPSHOT_HEADER.size, 'snapshot table entry');
    const { idStrSize, nameSize, extraDataSize } = SNAPSHOT_HEADER.read(view, 0);
    const used = SNAPSHOT_HEADER.size + extraDataSize + idStrSize + nameSize;
    const entry = Buffer.alloc(alignUp(used, 8));
    readExactly(storage, at, used, 'snapshot table entry').bytes.copy(entry);
    entries.push(entry);
    at += entry.length;
  }
  return entries;
}

export function newEntry(snapshot: NewSnapshot): RawEntry {
  const { id, name, l1TableOffset, l1Size, diskSize, vmStateSize, date } = snapshot;
  const [idBytes, nameBytes] = [Buffer.from(id), Buffer.from(name)];
  const used = SNAPSHOT_HEADER.size + NEW_EXTRA_SIZE + idBytes.length + nameBytes.length;
  const entry = Buffer.alloc(alignUp(used, 8));
  const view = viewOf(entry);
  SNAPSHOT_HEADER.write(view, 0, {
    l1TableOffset,
    l1Size,
    idStrSize: idBytes.length,
    nameSize: nameBytes.length,
    dateSec: date.sec,
    dateNsec: date.nsec,
    vmClockNsec: snapshot.vmClock,
    vmStateSize: vmStateSize < TWO_32 ? vmStateSize : 0,
    extraDataSize: NEW_EXTRA_SIZE,
  });
  const extra = { vmStateSizeLarge: vmStateSize, diskSize, icount: snapshot.icount ?? NO_ICOUNT };
  SNAPSHOT_EXTRA.write(view, SNAPSHOT_HEADER.size, extra);
  idBytes.copy(entry, SNAPSHOT_HEADER.size + NEW_EXTRA_SIZE);
  nameBytes.copy(entry, SNAPSHOT_HEADER.size + NEW_EXTRA_SIZE + idBytes.length);
  return entry;
}

/** The same entry with another name. */
export function renamedEntry(entry: RawEntry, name: string): RawEntry {
  const { idStrSize, extraDataSize } = SNAPSHOT_HEADER.read(viewOf(entry), 0);
  const nameBytes = Buffer.from(name);
  const nameAt = SNAPSHOT_HEADER.size + extraDataSize + idStrSize;
  const renamed = Buffer.alloc(alignUp(nameAt + nameBytes.length, 8));
  entry.copy(renamed, 0, 0, nameAt);
  nameBytes.copy(renamed, nameAt);
  SNAPSHOT_HEADER.set(viewOf(renamed), 0, 'nameSize', nameBytes.length);
  return renamed;
}

/**
 * The same entry with all the extra data that version 3 asks for: the VM state's size and the disk's.
 * What it has beyond that stays.
 */
export function completedEntry(entry: RawEntry, snapshot: Snapshot): RawEntry {
  const { extraDataSize, idStrSize, nameSize } = SNAPSHOT_HEADER.read(viewOf(entry), 0);
  if (extraDataSize >= LEAST_EXTRA_SIZE) return entry;
  const strings = SNAPSHOT_HEADER.size + extraDataSize;
  const used = SNAPSHOT_HEADER.size + NEW_EXTRA_SIZE + idStrSize + nameSize;
  const completed = Buffer.alloc(alignUp(used, 8));
  entry.copy(completed, 0, 0, SNAPSHOT_HEADER.size);
  entry.copy(
    completed,
    SNAPSHOT_HEADER.size + NEW_EXTRA_SIZE,
    strings,
    strings + idStrSize + nameSize,
  );
  const view = viewOf(completed);
  SNAPSHOT_HEADER.set(view, 0, 'extraDataSize', NEW_EXTRA_SIZE);
  const { vmStateSize, diskSize, icount } = snapshot;
  const extra = { vmStateSizeLarge: vmStateSize, diskSize, icount: icount ?? NO_ICOUNT };
  SNAPSHOT_EXTRA.write(view, SNAPSHOT_HEADER.size, extra);
  return completed;
}

/** All entries as one table. Throws EFBIG where it is larger than readers accept. */
export function tableOf(entries: readonly RawEntry[]): IoBuffer {
  const size = entries.reduce((sum, { length }) => sum + length, 0);
  if (entries.length > LIMIT.MAX_SNAPSHOTS || size > LIMIT.MAX_SNAPSHOT_TABLE_SIZE) {
    throw new ImageError('invalid', 'EFBIG', 'Too many snapshots', {
      limit: `at most ${LIMIT.MAX_SNAPSHOTS}, and ${LIMIT.MAX_SNAPSHOT_TABLE_SIZE} bytes of table`,
    });
  }
  const table = new IoBuffer(size);
  let at = 0;
  for (const entry of entries) {
    table.bytes.set(entry, at);
    at += entry.length;
  }
  return table;
}

/** Throws ENAMETOOLONG where a snapshot cannot have that name; `least`: bytes. */
export function checkName(name: string, least = 1): void {
  const length = Buffer.byteLength(name);
  if (length >= least && length <= MAX_NAME_SIZE) return;
  throw new ImageError('invalid', 'ENAMETOOLONG', `a snapshot's name of ${length} bytes`, {
    limit: `${least} to ${MAX_NAME_SIZE}`,
  });
}

function viewOf(entry: Buffer): DataView {
  return new DataView(entry.buffer, entry.byteOffset, entry.length);
}
