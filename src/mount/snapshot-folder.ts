/** The names in `disk.snapshots`: made on first use, and found without looking at any disk. */
import { snapshotFileNames } from './names.js';
import { nodeId, SLOT } from './node.js';

const SUFFIXES = [
  { suffix: '.raw', slot: SLOT.RAW },
  { suffix: '.vmstate', slot: SLOT.VMSTATE },
  { suffix: '.partitions', slot: SLOT.PARTITIONS },
] as const;

interface Names {
  readonly all: readonly string[];
  readonly indexOf: ReadonlyMap<string, number>;
}

export class SnapshotFolder {
  readonly #snapshots: readonly { readonly id: string; readonly name: string }[];
  #made: Names | undefined;

  constructor(snapshots: readonly { readonly id: string; readonly name: string }[]) {
    this.#snapshots = snapshots;
  }

  /** The name of what belongs to the snapshot at `index`, without its suffix. */
  nameOf(index: number): string {
    return this.#names().all[index]!;
  }

  /** The number that a node of that name has; there need not be one. */
  find(name: string): number | undefined {
    const kind = SUFFIXES.find(({ suffix }) => name.endsWith(suffix));
    if (kind === undefined) return undefined;
    const index = this.#names().indexOf.get(name.slice(0, -kind.suffix.length));
    return index === undefined ? undefined : nodeId(index + 1, kind.slot);
  }

  #names(): Names {
    if (this.#made === undefined) {
      const all = snapshotFileNames(this.#snapshots);
      this.#made = { all, indexOf: new Map(all.map((name, index) => [name, index])) };
    }
    return this.#made;
  }
}
