/** What is in `disk.snapshots`: names made on first use, and found without looking at any disk. */
import type { SnapshotView } from '../image/attach.js';
import type { Snapshot } from '../image/qcow2/snapshots.js';
import { directoryEntry, type Entry, fileEntry } from './entry.js';
import { snapshotFileNames } from './names.js';
import { nodeId, SLOT } from './node.js';

/** Up to so many snapshots, listing them reads their partition tables. */
const MOST_TABLES_LISTED = 256;
/** Places in the listing for each snapshot: disk, VM state, what changed since, partitions. */
const PLACES = 4;

const SUFFIXES = [
  { suffix: '.raw', slot: SLOT.RAW },
  { suffix: '.vmstate', slot: SLOT.VMSTATE },
  { suffix: '.changed.json', slot: SLOT.CHANGED },
  { suffix: '.partitions', slot: SLOT.PARTITIONS },
] as const;

interface Names {
  readonly all: readonly string[];
  readonly viewOf: ReadonlyMap<string, number>;
}

export class SnapshotFolder {
  readonly #snapshots: readonly SnapshotView[];
  #made: Names | undefined;

  /** Their views ascend. */
  constructor(snapshots: readonly SnapshotView[]) {
    this.#snapshots = snapshots;
  }

  get isEmpty(): boolean {
    return this.#snapshots.length === 0;
  }

  /** The snapshot of that view, if there is one. */
  snapshot(view: number): Snapshot | undefined {
    const found = this.#snapshots[this.#firstFrom(view)];
    return found?.view === view ? found.snapshot : undefined;
  }

  /** The number that a node of that name has; there need not be one. */
  find(name: string): number | undefined {
    const kind = SUFFIXES.find(({ suffix }) => name.endsWith(suffix));
    if (kind === undefined) return undefined;
    const view = this.#names().viewOf.get(name.slice(0, -kind.suffix.length));
    return view === undefined ? undefined : nodeId(view, kind.slot);
  }

  /** The view of the snapshot that a user means: by its name, its id, or its files' name. */
  meant(wanted: string, first: 'id' | 'name'): number | undefined {
    const byId = this.#snapshots.find(({ snapshot }) => snapshot.id === wanted)?.view;
    const byName = this.#snapshots.find(({ snapshot }) => snapshot.name === wanted)?.view;
    const [one, other] = first === 'id' ? [byId, byName] : [byName, byId];
    return one ?? other ?? this.#names().viewOf.get(wanted);
  }

  /** The entries from a place on. Places go by views: who deletes while he lists misses nothing. */
  *list(from: number, showsPartitions: (view: number) => boolean): Generator<Entry> {
    const snapshots = this.#snapshots;
    const withTables = snapshots.length <= MOST_TABLES_LISTED;
    const first = this.#firstFrom(Math.floor(from / PLACES));
    for (let index = first; index < snapshots.length; index++) {
      const { view, snapshot } = snapshots[index]!;
      const name = this.#names().all[index]!;
      for (let at = Math.max(from, view * PLACES); at < (view + 1) * PLACES; at++) {
        const [place, next] = [at % PLACES, at + 1];
        if (place === 0) yield fileEntry(`${name}.raw`, nodeId(view, SLOT.RAW), next);
        else if (place === 1) {
          if (snapshot.vmStateSize === 0) continue;
          yield fileEntry(`${name}.vmstate`, nodeId(view, SLOT.VMSTATE), next);
        } else if (place === 2) {
          yield fileEntry(`${name}.changed.json`, nodeId(view, SLOT.CHANGED), next);
        } else if (withTables && showsPartitions(view)) {
          yield directoryEntry(`${name}.partitions`, nodeId(view, SLOT.PARTITIONS), next);
        }
      }
    }
  }

  /** The index of the first snapshot with that view or a later one. */
  #firstFrom(view: number): number {
    let [low, high] = [0, this.#snapshots.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#snapshots[middle]!.view < view) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #names(): Names {
    if (this.#made === undefined) {
      const all = snapshotFileNames(this.#snapshots.map(({ snapshot }) => snapshot));
      const views = all.map((name, index) => [name, this.#snapshots[index]!.view] as const);
      this.#made = { all, viewOf: new Map(views) };
    }
    return this.#made;
  }
}
