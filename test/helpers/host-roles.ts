/** What the writes of a recording were for, by where in the image they went. */
import type { Qcow2Header } from '#src/image/qcow2/header.js';
import { readHeader } from '#src/image/qcow2/header.js';
import { INCOMPATIBLE } from '#src/image/qcow2/layout.js';
import { readSnapshots } from '#src/image/qcow2/snapshots.js';
import { MemoryStorage } from '#src/storage/memory.js';
import type { Operation, Recording } from './recording-storage.js';

/** Writes to the header are told apart by the fields that they change. */
export type Role =
  | 'data'
  | 'l2'
  | 'l1'
  | 'refcount block'
  | 'refcount table'
  | 'snapshot table'
  | 'header'
  | 'header: size'
  | 'header: l1'
  | 'header: refcount table'
  | 'header: snapshots'
  | 'header: features'
  /** The dirty bit set. */
  | 'header: dirty'
  /** The dirty bit cleared. */
  | 'header: clean'
  | 'punch'
  | 'truncate'
  | 'none';

const HEADER_FIELDS: readonly [Role, number, number][] = [
  ['header: features', 72, 80],
  ['header: refcount table', 48, 60],
  ['header: snapshots', 60, 72],
  ['header: l1', 36, 48],
  ['header: size', 24, 32],
];

/** The lowest byte of the incompatible features. */
const DIRTY_BYTE = 79;

const CLUSTER_OFFSET = 0x00ff_ffff_ffff_fe00n;

/** The role of each operation. */
export function rolesOf(recording: Recording): Role[] {
  const { operations, initial } = recording;
  const roles = new Array<Role>(operations.length).fill('none');
  const file = new MemoryStorage(initial.slice());
  let start = 0;
  let before = clusterRoles(initial);
  for (const [index, operation] of operations.entries()) {
    roles[index] = headerRole(file.bytes, operation);
    play(file, operation);
    // Only where all is flushed do the tables in the file say what its clusters are.
    const flushed = operation.kind === 'note' && operation.note.kind === 'acknowledged';
    if (!flushed && index < operations.length - 1) continue;
    const after = clusterRoles(file.bytes);
    for (let n = start; n <= index; n++) {
      if (roles[n] !== 'none') continue;
      roles[n] = roleOf(operations[n]!, before, after);
    }
    start = index + 1;
    before = after;
  }
  return roles;
}

/** Does the operation again. */
export function play(file: MemoryStorage, operation: Operation): void {
  if (operation.kind === 'write') {
    const { bytes, position } = operation;
    if (position + bytes.length > file.size()) file.truncate(position + bytes.length);
    file.bytes.set(bytes, position);
  } else if (operation.kind === 'punch') file.punch(operation.position, operation.length);
  else if (operation.kind === 'truncate') file.truncate(operation.size);
}

interface ClusterRoles {
  readonly clusterSize: number;
  readonly roles: ReadonlyMap<number, Role>;
}

function roleOf(operation: Operation, before: ClusterRoles, after: ClusterRoles): Role {
  if (operation.kind === 'punch' || operation.kind === 'truncate') return operation.kind;
  if (operation.kind !== 'write') return 'none';
  const cluster = Math.floor(operation.position / after.clusterSize);
  return after.roles.get(cluster) ?? before.roles.get(cluster) ?? 'data';
}

function headerRole(bytes: Uint8Array, operation: Operation): Role {
  if (operation.kind !== 'write' || operation.position >= 112) return 'none';
  const { position } = operation;
  const changes = (start: number, end: number): boolean => {
    for (let at = Math.max(start, position); at < end; at++) {
      const now = operation.bytes[at - position];
      if (now !== undefined && now !== bytes[at]) return true;
    }
    return false;
  };
  const role = HEADER_FIELDS.find(([, start, end]) => changes(start, end))?.[0] ?? 'header';
  if (role !== 'header: features' || !changes(DIRTY_BYTE, DIRTY_BYTE + 1)) return role;
  const dirty = (operation.bytes[DIRTY_BYTE - position]! & (1 << INCOMPATIBLE.DIRTY)) !== 0;
  return dirty ? 'header: dirty' : 'header: clean';
}

function clusterRoles(bytes: Uint8Array): ClusterRoles {
  const storage = new MemoryStorage(bytes);
  const header = readHeader(storage);
  const { clusterSize } = header.geometry;
  const roles = new Map<number, Role>([[0, 'header']]);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const mark = (offset: number, length: number, role: Role): void => {
    for (let at = offset; at < offset + length; at += clusterSize) {
      roles.set(Math.floor(at / clusterSize), role);
    }
  };
  const entries = (offset: number, count: number): number[] => {
    const present = Math.min(count, Math.floor((bytes.length - offset) / 8));
    return Array.from({ length: Math.max(0, present) }, (_, n) =>
      Number(view.getBigUint64(offset + n * 8) & CLUSTER_OFFSET),
    ).filter((entry) => entry !== 0);
  };
  const markL1 = (offset: number, size: number): void => {
    mark(offset, size * 8, 'l1');
    for (const table of entries(offset, size)) mark(table, clusterSize, 'l2');
  };
  markRefcounts(header, mark, entries);
  const snapshots = readSnapshots(storage, header);
  for (const { l1TableOffset, l1Size } of snapshots) markL1(l1TableOffset, l1Size);
  markL1(header.l1TableOffset, header.l1Size);
  if (snapshots.length > 0) mark(header.snapshotsOffset, 1, 'snapshot table');
  return { clusterSize, roles };
}

function markRefcounts(
  header: Qcow2Header,
  mark: (offset: number, length: number, role: Role) => void,
  entries: (offset: number, count: number) => number[],
): void {
  const { refcountTableOffset, refcountTableClusters, geometry } = header;
  const length = refcountTableClusters * geometry.clusterSize;
  mark(refcountTableOffset, length, 'refcount table');
  for (const block of entries(refcountTableOffset, length / 8)) {
    mark(block, geometry.clusterSize, 'refcount block');
  }
}
