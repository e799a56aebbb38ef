/**
 * What a disk may hold after a crash: what the last acknowledged flush made certain and, for each
 * sector written since, any of the values written since.
 */
import { ZEROES } from './sector-marks.js';

export interface SnapshotState {
  readonly name: string;
  /** Generation of each sector. */
  readonly sectors: Int32Array;
  /** How many changes there had been when it was taken. */
  readonly takenAt: number;
}

/** A disk and its snapshots at some moment. Never changed. */
export interface DiskState {
  readonly sectors: Int32Array;
  readonly snapshots: readonly SnapshotState[];
  /** How many changes there had been. */
  readonly changes: number;
}

export type Note =
  /** Begins; whether it gets done is open until a flush. */
  | { readonly kind: 'change'; readonly label: string; readonly after: DiskState }
  /** A flush has returned: all changes before are certain. */
  | { readonly kind: 'acknowledged'; readonly state: DiskState };

export function emptyState(sectors: Int32Array): DiskState {
  return { sectors, snapshots: [], changes: 0 };
}

/** The disk with other values in the `values.length` sectors from `first` on. */
export function withSectors(state: DiskState, first: number, values: Int32Array): DiskState {
  const sectors = state.sectors.slice();
  sectors.set(values, first);
  return { ...state, sectors, changes: state.changes + 1 };
}

/** The disk cut, or grown by zeroes. */
export function withSize(state: DiskState, size: number): DiskState {
  const sectors = new Int32Array(size).fill(ZEROES);
  sectors.set(state.sectors.subarray(0, size));
  return { ...state, sectors, changes: state.changes + 1 };
}

export function withSnapshots(state: DiskState, snapshots: readonly SnapshotState[]): DiskState {
  return { ...state, snapshots, changes: state.changes + 1 };
}

/** What may be found after a crash. */
export class Expectation {
  /** What the disk held when the recording began. */
  readonly initial: DiskState;
  readonly #certain: DiskState;
  /** States behind the certain one, in order. */
  readonly #since: DiskState[] = [];
  readonly #labels: string[] = [];

  constructor(initial: DiskState, notes: Iterable<Note>) {
    this.initial = initial;
    let certain = initial;
    for (const note of notes) {
      if (note.kind === 'change') {
        this.#since.push(note.after);
        this.#labels.push(note.label);
      } else {
        certain = note.state;
        this.#since.length = 0;
        this.#labels.length = 0;
      }
    }
    this.#certain = certain;
  }

  /** What was going on, for messages. */
  get doing(): string {
    return this.#labels.length === 0 ? 'nothing' : this.#labels.slice(-4).join(', ');
  }

  /** What is wrong with a disk of these sectors, or null. */
  disk(found: Int32Array): Problem | null {
    const states = [this.#certain, ...this.#since];
    if (!states.some(({ sectors }) => sectors.length === found.length)) {
      const sizes = [...new Set(states.map(({ sectors }) => sectors.length))].join(' or ');
      return { what: `size is ${found.length} sectors, not ${sizes}`, sector: null };
    }
    return compare(found, states, 'disk');
  }

  /** What is wrong with the names of the snapshots, or null. */
  snapshotNames(found: readonly string[]): Problem | null {
    const states = [this.#certain, ...this.#since];
    const namesOf = ({ snapshots }: DiskState) => snapshots.map(({ name }) => name).join(',');
    if (states.some((state) => namesOf(state) === found.join(','))) return null;
    const legal = [...new Set(states.map((state) => `[${namesOf(state)}]`))].join(' or ');
    return { what: `snapshots are [${found.join(',')}], not ${legal}`, sector: null };
  }

  /** What is wrong with a snapshot that is there, or null. */
  snapshot(name: string, found: Int32Array): Problem | null {
    const certain = this.#certain.snapshots.find((snapshot) => snapshot.name === name);
    const legal = certain === undefined ? [] : [{ sectors: certain.sectors }];
    const seen = new Set<number>(certain === undefined ? [] : [certain.takenAt]);
    for (const state of this.#since) {
      const taken = state.snapshots.find((snapshot) => snapshot.name === name);
      if (taken === undefined || seen.has(taken.takenAt)) continue;
      seen.add(taken.takenAt);
      legal.push(...this.#whenTaken(taken));
    }
    return compare(found, legal, `snapshot ${name}`);
  }

  /** Of a snapshot that is not certain yet, neither is what was written before it. */
  #whenTaken(taken: SnapshotState): { sectors: Int32Array }[] {
    if (taken.takenAt <= this.#certain.changes) return [taken];
    return [this.#certain, ...this.#since.filter(({ changes }) => changes <= taken.takenAt), taken];
  }
}

export interface Problem {
  readonly what: string;
  /** The sector of the disk or snapshot that is wrong. */
  readonly sector: number | null;
}

function compare(
  found: Int32Array,
  states: readonly { readonly sectors: Int32Array }[],
  where: string,
): Problem | null {
  for (let sector = 0; sector < found.length; sector++) {
    const value = found[sector]!;
    // Sectors past the end of an earlier disk were nothing then.
    if (states.some(({ sectors }) => (sectors[sector] ?? ZEROES) === value)) continue;
    const legal = [...new Set(states.map(({ sectors }) => sectors[sector] ?? ZEROES))].join(' or ');
    return { what: `${where} sector ${sector}: generation ${value}, not ${legal}`, sector };
  }
  return null;
}
