/**
 * Orders broken on purpose, in a recording: what the file would have gone through if the writer had
 * kept one rule less. The simulation must notice each.
 */
import { type Role, rolesOf } from './host-roles.js';
import type { Operation, Recording } from './recording-storage.js';

/** Flushes between two writes that depend on each other, at most. */
const MOST_FLUSHES = 4;

export interface PlantedFault {
  readonly name: string;
  /** The workloads that show it: parts of their names. */
  readonly workloads: readonly string[];
  readonly plant: (recording: Recording) => Planted;
}

export interface Planted {
  readonly recording: Recording;
  /** Those that come too late now. */
  readonly moved: ReadonlySet<Operation>;
}

/** Nothing is ever flushed, though the workload is told so. */
function withoutFlushes({ initial, operations }: Recording): Planted {
  const left = operations.filter(({ kind }) => kind !== 'flush');
  return { recording: { initial, operations: left }, moved: new Set(left) };
}

/** Only what somebody is told of is flushed: nothing waits for anything before. */
function withoutOrder({ initial, operations }: Recording): Planted {
  const left = operations.filter(({ kind }, index) => {
    const next = operations[index + 1];
    return kind !== 'flush' || (next !== undefined && acknowledges(next));
  });
  return { recording: { initial, operations: left }, moved: new Set(left) };
}

/** Writes of a role never happen. */
function withoutWrites(role: Role): PlantedFault['plant'] {
  return (recording) => {
    const { initial, operations } = recording;
    const roles = rolesOf(recording);
    const left = operations.filter((_, index) => roles[index] !== role);
    return { recording: { initial, operations: left }, moved: new Set(left) };
  };
}

/** Only the flags of bitmaps are written by themselves, and are as short. */
function withoutFlagWrites({ initial, operations }: Recording): Planted {
  const left = operations.filter((one) => one.kind !== 'write' || one.bytes.length !== 4);
  return { recording: { initial, operations: left }, moved: new Set(left) };
}

/**
 * Writes of the role `first` move behind the flush that kept them before those of `second`; both may
 * then be there or not. What a flush acknowledged meanwhile counts for nothing, so that only the
 * order is wrong and no promise.
 */
export function unordered(first: Role, second: Role): PlantedFault['plant'] {
  return (recording) => {
    const { initial, operations } = recording;
    const roles = rolesOf(recording);
    const role = new Map(operations.map((operation, index) => [operation, roles[index]!]));
    const epochs = splitAtFlushes(operations);
    const moved = new Set<Operation>();
    const isMoved = (operation: Operation) => moved.has(operation);
    for (let from = 0; from < epochs.length; from++) {
      const early = epochs[from]!.filter((one) => role.get(one) === first && !isMoved(one));
      if (early.length === 0) continue;
      const to = epochs.findIndex((epoch, index) => {
        const near = index > from && index <= from + MOST_FLUSHES;
        return near && epoch.some((one) => role.get(one) === second && !isMoved(one));
      });
      if (to < 0) continue;
      for (const one of early) moved.add(one);
      epochs[from] = epochs[from]!.filter((one) => !isMoved(one));
      epochs[to] = [...early, ...epochs[to]!];
      for (let n = from; n <= to; n++) epochs[n] = epochs[n]!.filter((one) => !acknowledges(one));
    }
    return { recording: { initial, operations: epochs.flat() }, moved };
  };
}

function acknowledges(operation: Operation): boolean {
  return operation.kind === 'note' && operation.note.kind === 'acknowledged';
}

/** Each run ends with its flush. */
function splitAtFlushes(operations: readonly Operation[]): Operation[][] {
  const epochs: Operation[][] = [[]];
  for (const operation of operations) {
    epochs.at(-1)!.push(operation);
    if (operation.kind === 'flush') epochs.push([]);
  }
  return epochs;
}

export const PLANTED_FAULTS: readonly PlantedFault[] = [
  { name: 'no flush at all', workloads: ['growth/v3/4k'], plant: withoutFlushes },
  { name: 'no order in QED', workloads: ['cow-backing/qed/4k'], plant: withoutOrder },
  { name: 'no order in qcow', workloads: ['cow-backing/qcow'], plant: withoutOrder },
  {
    name: 'data after the L2 entry',
    workloads: ['growth/v3/4k', 'cow-backing/v3/4k'],
    plant: unordered('data', 'l2'),
  },
  {
    name: 'refcount block after the L2 entry',
    workloads: ['growth/v3/4k', 'growth/v2/512'],
    plant: unordered('refcount block', 'l2'),
  },
  {
    name: 'refcount block after the refcount table that names it',
    workloads: ['growth/v3/512', 'refcount-growth/v3'],
    plant: unordered('refcount block', 'refcount table'),
  },
  {
    name: 'L2 table after the L1 entry',
    workloads: ['growth/v3/512', 'cow-snapshot/v3/4k'],
    plant: unordered('l2', 'l1'),
  },
  {
    name: 'L1 table after the header that names it',
    workloads: ['resize/v3/512', 'resize/v2/512'],
    plant: unordered('l1', 'header: l1'),
  },
  {
    name: 'refcount table after the header that names it',
    workloads: ['refcount-growth/v3'],
    plant: unordered('refcount table', 'header: refcount table'),
  },
  {
    name: 'refcounts of another width after the header that names them',
    workloads: ['refcount-widths/v3/4k', 'refcount-widths/v3/512'],
    plant: unordered('refcount block', 'header: refcount table'),
  },
  {
    name: 'snapshot table after the header that names it',
    workloads: ['snapshots/v3/4k', 'snapshots/v2/512'],
    plant: unordered('snapshot table', 'header: snapshots'),
  },
  {
    name: 'a refcount that goes down before the L2 entry is gone',
    workloads: ['discard/v3/4k', 'discard/v3/512'],
    plant: unordered('l2', 'refcount block'),
  },
  {
    name: 'a hole before the L2 entry is gone',
    workloads: ['discard/v3/4k', 'discard/v3/512'],
    plant: unordered('l2', 'punch'),
  },
  {
    name: 'a freed cluster used again before the L2 entry is gone',
    workloads: ['discard/v3/4k', 'compressed/v3/4k'],
    plant: unordered('l2', 'data'),
  },
  {
    name: 'the dirty bit after the entries that it covers',
    workloads: ['growth/lazy/4k', 'growth/lazy/512'],
    plant: unordered('header: dirty', 'l2'),
  },
  {
    name: 'the dirty bit cleared before the counts are right',
    workloads: ['growth/lazy/4k', 'growth/lazy/512'],
    plant: unordered('refcount block', 'header: clean'),
  },
  {
    name: 'bitmaps that are not marked as in use',
    workloads: ['bitmaps/v3/4k'],
    plant: withoutFlagWrites,
  },
  {
    name: 'clusters that are moved after the entries that refer to them',
    workloads: ['compact/v3/4k', 'compact/v2/512'],
    plant: unordered('data', 'l2'),
  },
  {
    name: 'no dirty bit',
    workloads: ['growth/lazy/4k'],
    plant: withoutWrites('header: dirty'),
  },
];
