/** What a rebuild of the refcounts cannot make good: pointers that lead nowhere, clusters with two uses. */
import { describeError, ImageError } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import type { Bitmap } from './bitmaps.js';
import type { ScanFinding } from './check-findings.js';
import { hasBit } from './features.js';
import type { Qcow2Header } from './header.js';
import { AUTOCLEAR } from './layout.js';
import { type ClusterUse, USE_NAMES } from './reference-counts.js';
import { type Snapshot, snapshotTableSize } from './snapshots.js';

export class ProblemList {
  readonly #clusterSize: number;
  /** In words. */
  #first = '';
  #count = 0;

  constructor(clusterSize: number) {
    this.#clusterSize = clusterSize;
  }

  /** Throws 'corrupt', EIO, where there are any. */
  refuse({ name }: Storage): void {
    if (this.#count === 0) return;
    const more = this.#count > 1 ? ` (and ${this.#count - 1} more problems)` : '';
    const message = `${name}: cannot rebuild the refcounts: ${this.#first}${more}`;
    throw new ImageError('corrupt', 'EIO', message, { path: name });
  }

  checkSnapshots({ nbSnapshots }: Qcow2Header, snapshots: readonly Snapshot[]): void {
    if (nbSnapshots !== snapshots.length) {
      this.#add(`snapshot table: ${snapshots.length} of ${nbSnapshots} entries known`);
    }
    for (const { problem } of snapshots) if (problem !== null) this.#add(problem);
  }

  checkBitmaps(header: Qcow2Header, bitmaps: readonly Bitmap[]): void {
    const valid = hasBit(header.autoclearFeatures, AUTOCLEAR.BITMAPS);
    const nbBitmaps = valid ? (header.extensions.bitmaps?.nbBitmaps ?? 0) : 0;
    if (nbBitmaps === bitmaps.length) return;
    this.#add(`bitmap directory: ${bitmaps.length} of ${nbBitmaps} entries known`);
  }

  /** Bytes of the snapshot table; 0 where it cannot be read. */
  snapshotTableSize(storage: Storage, header: Qcow2Header): number {
    try {
      return header.nbSnapshots === 0 ? 0 : snapshotTableSize(storage, header);
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      this.#add(describeError(error));
      return 0;
    }
  }

  addConflict(cluster: number, use: ClusterUse, other: ClusterUse): void {
    const offset = cluster * this.#clusterSize;
    this.#add(`${USE_NAMES[use]} at offset 0x${offset.toString(16)} is also ${USE_NAMES[other]}`);
  }

  addFinding(finding: ScanFinding): void {
    // Its flag is cleared with all others that are wrong.
    if (finding.kind === 'compressed-copied') return;
    this.#add(describeFinding(finding));
  }

  #add(words: string): void {
    if (this.#count++ === 0) this.#first = words;
  }
}

function describeFinding(finding: ScanFinding): string {
  const hex = (value: bigint | number) => `0x${value.toString(16)}`;
  switch (finding.kind) {
    case 'past-end':
      return `${USE_NAMES[finding.use]} at offset ${hex(finding.offset)} is past the end of file`;
    case 'l2-table-unaligned':
      return `L2 table at unaligned offset ${hex(finding.offset)}`;
    case 'l1-reserved':
      return `L1 entry ${hex(finding.entry)}: reserved bits set`;
    case 'l2-reserved':
      return `L2 entry ${hex(finding.entry)}: reserved bits set`;
    case 'data-unaligned':
    case 'zero-unaligned':
      return `cluster at unaligned offset ${hex(finding.offset)}`;
    case 'bitmap-entry':
      return `bitmap '${finding.name}': table entry ${hex(finding.entry)} is invalid`;
    case 'block-outside':
      return `refcount block ${finding.index} is past the end of file`;
    case 'block-unaligned':
      return `refcount block ${finding.index} at unaligned offset`;
    case 'block-reserved':
      return `refcount table entry ${finding.index}: reserved bits set`;
    default:
      return finding.kind;
  }
}
