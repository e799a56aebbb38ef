/**
 * What amending an image changes through its tables, step by step. Each step is durable at its end,
 * and the image is consistent between them. For who alone has the image.
 *
 * Steps are generators that hold the image's reservation until they end, and answer how far they are,
 * from 0 to 1. One that is left early leaves the image as good as it was.
 */
import type { RefcountWidth } from './refcount-width.js';
import type { L1Place } from './shared-references.js';
import type { Steps } from '../steps.js';
import type { SnapshotEditor } from './snapshot-edit.js';
import type { Snapshot } from './snapshots.js';
import type { ZeroExpander } from './zero-expansion.js';

/** Runs steps with the reservation, while nobody reads or writes. */
export type RunAlone = (steps: () => Steps<void>) => Steps<void>;

export interface AmenderParts {
  readonly zeroes: ZeroExpander;
  readonly width: RefcountWidth;
  readonly snapshotEditor: SnapshotEditor;
  readonly snapshots: () => readonly Snapshot[];
  readonly alone: RunAlone;
}

export class Amender {
  readonly #parts: AmenderParts;

  constructor(parts: AmenderParts) {
    this.#parts = parts;
  }

  /** Leaves no zero cluster in the disk and its snapshots; `backed`: whether something lies below. */
  expandZeroes(backed: boolean): Steps<void> {
    const { zeroes, alone } = this.#parts;
    return alone(() => zeroes.expand(this.#places(), backed));
  }

  /** Whether the disk or a snapshot has compressed clusters. */
  hasCompressed(): boolean {
    return this.#parts.zeroes.findCompressed(this.#places());
  }

  /** The snapshots' L1 tables. */
  #places(): L1Place[] {
    const snapshots = this.#parts.snapshots();
    return snapshots.map(({ l1TableOffset, l1Size }) => ({ offset: l1TableOffset, size: l1Size }));
  }

  /** Throws where a count does not fit that width; nothing is held back when it is asked. */
  checkRefcountWidth(bits: number): void {
    this.#parts.width.check(bits);
  }

  /** Makes refcounts `bits` wide. The image must be attached anew before anything else is done. */
  changeRefcountWidth(bits: number): Steps<void> {
    const { width, alone } = this.#parts;
    return alone(() => width.change(bits));
  }

  /** Completes the snapshots' entries for version 3. */
  completeSnapshots(): Steps<void> {
    const { snapshotEditor, snapshots, alone } = this.#parts;
    return alone(function* () {
      snapshotEditor.complete(snapshots());
      yield 1;
    });
  }
}
