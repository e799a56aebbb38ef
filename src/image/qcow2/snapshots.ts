/** The snapshot table: read and checked entry by entry. */
import { alignUp } from '../../codec/bits.js';
import { type ErrnoName, ImageError } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { readExactly } from '../read-bytes.js';
import { type Geometry, vmStateStart } from './geometry.js';
import { checkTable, type Qcow2Header } from './header.js';
import { LIMIT, SNAPSHOT_EXTRA, SNAPSHOT_HEADER } from './layout.js';

/** One internal snapshot. Sizes are bytes. */
export interface Snapshot {
  readonly id: string;
  readonly name: string;
  readonly l1TableOffset: number;
  readonly l1Size: number;
  readonly diskSize: number;
  readonly vmStateSize: number;
  readonly dateSec: number;
  readonly dateNsec: number;
  /** The same, exact: 104 days of nanoseconds are more than a number holds. */
  readonly vmClock: bigint;
  /** Instructions executed, where the machine counted them. */
  readonly icount: bigint | null;
  /** Why its disk cannot be read, if it cannot; the others can. */
  readonly problem: string | null;
}

/** What is needed of a header to read its snapshots. */
export type SnapshotSource = Pick<
  Qcow2Header,
  'geometry' | 'size' | 'snapshotsOffset' | 'nbSnapshots'
>;

/** Reads all snapshots of the image in `storage`, in the table's order. */
export function readSnapshots(storage: Storage, header: SnapshotSource): Snapshot[] {
  const snapshots: Snapshot[] = [];
  let offset = header.snapshotsOffset;
  for (let index = 0; index < header.nbSnapshots; index++) {
    const { snapshot, size } = readEntry(storage, header, offset, index);
    snapshots.push(snapshot);
    offset += size;
    const total = offset - header.snapshotsOffset;
    if (total > LIMIT.MAX_SNAPSHOT_TABLE_SIZE) {
      throw invalid(
        'EFBIG',
        'Snapshot table is too big',
        `${total} bytes, at most ${LIMIT.MAX_SNAPSHOT_TABLE_SIZE}`,
        `You can force-remove all ${header.nbSnapshots - index} overhanging snapshots with qemu-img check -r all`,
      );
    }
  }
  return snapshots;
}

/** Bytes of the snapshot table, without padding behind its last entry. */
export function snapshotTableSize(
  storage: Storage,
  header: Pick<SnapshotSource, 'snapshotsOffset' | 'nbSnapshots'>,
): number {
  let end = 0;
  for (let index = 0; index < header.nbSnapshots; index++) {
    const at = header.snapshotsOffset + alignUp(end, 8);
    const { view } = readExactly(storage, at, SNAPSHOT_HEADER.size, 'snapshot table entry');
    const { extraDataSize, idStrSize, nameSize } = SNAPSHOT_HEADER.read(view, 0);
    end = alignUp(end, 8) + SNAPSHOT_HEADER.size + extraDataSize + idStrSize + nameSize;
  }
  return end;
}

function readEntry(
  storage: Storage,
  header: SnapshotSource,
  offset: number,
  index: number,
): { snapshot: Snapshot; size: number } {
  const fixed = readExactly(storage, offset, SNAPSHOT_HEADER.size, 'snapshot table entry');
  const fields = SNAPSHOT_HEADER.read(fixed.view, 0);
  const { idStrSize, nameSize, extraDataSize } = fields;
  if (extraDataSize > LIMIT.MAX_SNAPSHOT_EXTRA_DATA) {
    throw invalid(
      'EFBIG',
      `Too much extra metadata in snapshot table entry ${index}`,
      `${extraDataSize} bytes, at most ${LIMIT.MAX_SNAPSHOT_EXTRA_DATA}`,
      'You can force-remove this extra metadata with qemu-img check -r all',
    );
  }
  const at = offset + SNAPSHOT_HEADER.size;
  const rest = extraDataSize + idStrSize + nameSize;
  const { bytes, view } = readExactly(storage, at, rest, 'snapshot table entry');
  const has = (field: keyof typeof SNAPSHOT_EXTRA.offsets) =>
    extraDataSize >= SNAPSHOT_EXTRA.offsets[field] + 8;
  const name = bytes.subarray(extraDataSize + idStrSize);
  const snapshot = {
    id: bytes.subarray(extraDataSize, extraDataSize + idStrSize).toString(),
    name: name.toString(),
    l1TableOffset: fields.l1TableOffset,
    l1Size: fields.l1Size,
    diskSize: has('diskSize') ? SNAPSHOT_EXTRA.get(view, 0, 'diskSize') : header.size,
    vmStateSize: has('vmStateSizeLarge')
      ? SNAPSHOT_EXTRA.get(view, 0, 'vmStateSizeLarge')
      : fields.vmStateSize,
    dateSec: fields.dateSec,
    dateNsec: fields.dateNsec,
    vmClock: fields.vmClockNsec,
    icount: has('icount') ? SNAPSHOT_EXTRA.get(view, 0, 'icount') : null,
  };
  const problem = problemOf(header.geometry, snapshot);
  return {
    snapshot: { ...snapshot, problem },
    size: alignUp(SNAPSHOT_HEADER.size + rest, 8),
  };
}

/** Why the snapshot's own L1 table or sizes are beyond the limits, or null. */
function problemOf(geometry: Geometry, snapshot: Omit<Snapshot, 'problem'>): string | null {
  const { l1TableOffset, l1Size, diskSize, vmStateSize } = snapshot;
  const largest = Number.MAX_SAFE_INTEGER;
  const vmState = vmStateSize === 0 ? 0 : vmStateStart(geometry, diskSize);
  if (diskSize > largest || vmState + vmStateSize > largest) {
    return `Snapshot '${snapshot.name}' is too big`;
  }
  if (l1Size === 0) return null;
  try {
    checkTable(geometry, 'Snapshot L1 table', l1TableOffset, l1Size * 8, LIMIT.MAX_L1_SIZE);
    return null;
  } catch (error) {
    if (error instanceof ImageError) return `${error.message} (${error.context.limit})`;
    throw error;
  }
}

function invalid(code: ErrnoName, message: string, limit: string, hint: string): ImageError {
  return new ImageError('invalid', code, message, { limit, hint });
}
