/**
 * Checks an image: counts all references, compares the refcounts and the COPIED flags with them, and says
 * what is wrong; with a fix, it is put right (`repair.ts`). The same things are found, and counted, as by
 * QEMU. One pass over the tables; memory is 4 bytes for each cluster of the file, holes left out.
 */
import { ImageError } from '../../errors.js';
import type { MutableStorage } from '../../storage/storage.js';
import type { CheckResult, Fix } from '../check-result.js';
import type { Report, ScanFinding } from './check-findings.js';
import { type Steps, stepsWithin } from '../steps.js';
import type { CheckedImage } from './checked-image.js';
import { type CheckedTable, readCheckedTable } from './check-snapshots.js';
import { compareCopied } from './copied.js';
import { setFeatures } from './header-edit.js';
import type { Qcow2Header } from './header.js';
import { INCOMPATIBLE } from './layout.js';
import { compareRefcounts, largestCount, type RefcountComparison } from './refcount-compare.js';
import { RefcountReader } from './refcount-reader.js';
import { type ReferenceScan, type ScanSource, scanReferences } from './references.js';
import { repairImage } from './repair.js';

type Counters = {
  -readonly [K in
    | 'corruptions'
    | 'leaks'
    | 'checkErrors'
    | 'corruptionsFixed'
    | 'leaksFixed']: CheckResult[K];
};

/**
 * Checks the image, for one thread, before anybody else uses it. Throws an ImageError where it cannot be
 * checked: its snapshot table is none, or only a rebuild would help where leaks alone are to be repaired.
 */
export function checkImage(image: CheckedImage, fix: Fix, report: Report): Steps<CheckResult> {
  return new Check(image, fix, report).run();
}

class Check {
  readonly #image: CheckedImage;
  readonly #fix: Fix;
  readonly #report: Report;
  readonly #counters: Counters = {
    corruptions: 0,
    leaks: 0,
    checkErrors: 0,
    corruptionsFixed: 0,
    leaksFixed: 0,
  };

  constructor(image: CheckedImage, fix: Fix, report: Report) {
    this.#image = image;
    this.#fix = fix;
    this.#report = report;
  }

  *run(): Steps<CheckResult> {
    const { storage, header, bitmaps } = this.#image;
    const snapshots = readCheckedTable(storage, header, this.#fix === 'all', this.#report);
    const { entries, size } = snapshots;
    const source = { header, snapshots: entries, snapshotTableSize: size, bitmaps };
    const scanning = scanReferences(storage, source, {
      largest: largestCount(header.geometry.refcountBits),
      repairsEntries: this.#fix === 'all',
      report: (finding) => this.#countFinding(finding),
    });
    const scan = yield* stepsWithin(scanning, 0, PART.SCANNED);
    this.#counters.corruptionsFixed -= scan.entries.refused;
    this.#counters.corruptions += scan.entries.refused;
    const hasProblems = this.#counters.corruptions > 0;
    const compared = yield* stepsWithin(this.#compare(scan, 'none'), PART.SCANNED, PART.COMPARED);
    const differs = compared.leaks + compared.corruptions > 0;
    let table: Float64Array = scan.refcountTable;
    if (this.#fix === 'none') this.#countCompared(compared);
    else {
      const repairing = this.#repair(scan, source, snapshots, compared);
      table = yield* stepsWithin(repairing, PART.COMPARED, PART.REPAIRED);
    }
    const suspects = hasProblems || compared.hasWrongFlags || scan.entries.suspectsFlags;
    if (suspects || (differs && this.#fix !== 'none')) {
      yield* stepsWithin(this.#compareFlags(scan, table), PART.REPAIRED, 1);
    }
    this.#countSnapshots(snapshots);
    if (this.#fix !== 'none' && this.#counters.corruptions + this.#counters.checkErrors === 0) {
      clearWarningBits(storage, header);
    }
    const { allocated, fragmented, compressed } = scan.entries.fragmentation;
    return {
      ...this.#counters,
      imageEndOffset: (compared.highest + 1) * header.geometry.clusterSize,
      totalClusters: Math.ceil(header.size / header.geometry.clusterSize),
      allocatedClusters: allocated,
      fragmentedClusters: fragmented,
      compressedClusters: compressed,
    };
  }

  #countFinding(finding: ScanFinding): void {
    this.#report(finding);
    const isFixed = finding.kind === 'zero-unaligned' && finding.repairing;
    if (isFixed) this.#counters.corruptionsFixed++;
    else this.#counters.corruptions++;
  }

  /** Compares the refcounts; differences that `fix` puts right are told as such. */
  *#compare(scan: ReferenceScan, fix: Fix): Steps<RefcountComparison & { fixed: Fixed }> {
    const { storage, header } = this.#image;
    const end = Math.max(scan.fileClusters, scan.counts.end);
    const report = this.#report;
    const fixed = { leaks: 0, corruptions: 0 };
    const compared = yield* compareRefcounts(
      storage,
      header.geometry,
      { table: scan.refcountTable, end },
      scan.counts,
      (cluster, refcount, references) => {
        const isLeak = refcount > references;
        const repairing = isLeak
          ? fix !== 'none' && !scan.isProtected(cluster)
          : fix === 'all' && refcount !== 0;
        report({ kind: 'refcount', cluster, refcount, references, repairing });
        if (!repairing) return refcount;
        fixed[isLeak ? 'leaks' : 'corruptions']++;
        return references;
      },
      {
        block: (index) => {
          const offset = scan.unaligned.get(index);
          if (offset !== undefined) report({ kind: 'block-unreadable', index, offset });
        },
        cluster: (cluster) => report({ kind: 'refcount-unknown', cluster }),
      },
    );
    return { ...compared, fixed };
  }

  #countCompared({ leaks, corruptions, unknown }: RefcountComparison): void {
    this.#counters.leaks += leaks;
    this.#counters.corruptions += corruptions;
    this.#counters.checkErrors += unknown;
  }

  /** Answers the refcount table as it is then. */
  *#repair(
    scan: ReferenceScan,
    source: ScanSource,
    snapshots: CheckedTable,
    compared: RefcountComparison,
  ): Steps<Float64Array> {
    const counters = this.#counters;
    const fix = this.#fix === 'all' ? 'all' : 'leaks';
    const rebuild = scan.needsRebuild || compared.hasUncounted || compared.unknown > 0;
    if (rebuild && fix !== 'all') {
      this.#report({ kind: 'rebuild-needed' });
      throw new ImageError('corrupt', 'EIO', 'Input/output error', { operation: 'check' });
    }
    if (rebuild) this.#report({ kind: 'rebuilding' });
    else if (compared.leaks + compared.corruptions > 0) {
      const { leaks, corruptions, fixed } = yield* this.#compare(scan, fix);
      counters.leaks += leaks - fixed.leaks;
      counters.corruptions += corruptions - fixed.corruptions;
      counters.leaksFixed += fixed.leaks;
      counters.corruptionsFixed += fixed.corruptions;
    }
    const rewritten = fix === 'all' && snapshots.problems > 0 ? snapshots : null;
    const plan = {
      scan,
      source,
      snapshots: rewritten,
      fix,
      rebuild,
      report: this.#report,
    } as const;
    const { table, problems } = yield* repairImage(this.#image, plan);
    if (rebuild) {
      counters.corruptionsFixed += counters.corruptions + compared.corruptions - problems;
      counters.corruptions = problems;
      counters.leaksFixed += compared.leaks;
    }
    return table;
  }

  *#compareFlags(scan: ReferenceScan, table: Float64Array): Steps<void> {
    const { storage, header } = this.#image;
    const counters = this.#counters;
    const reader = new RefcountReader(storage, header.geometry, table);
    const { corruptions, checkErrors, leaks } = counters;
    // With leaks alone to be repaired, only where the counts are known to be right.
    const repairs =
      this.#fix === 'all' || (this.#fix === 'leaks' && corruptions + checkErrors + leaks === 0);
    yield* compareCopied(storage, header, {
      countOf: (cluster) => reader.get(cluster),
      strict: false,
      canRepair: (place) => scan.isOwnTable(place),
      repair: repairs
        ? (buffer, at, length, position) => storage.write(buffer, at, length, position)
        : undefined,
      report: (finding) => {
        this.#report(finding);
        if (finding.repairing) counters.corruptionsFixed++;
        else counters.corruptions++;
      },
    });
    if (repairs) storage.flush();
  }

  #countSnapshots({ problems }: CheckedTable): void {
    if (this.#fix === 'all') this.#counters.corruptionsFixed += problems;
    else this.#counters.corruptions += problems;
  }
}

/** How far a check is when it has done that. */
const PART = { SCANNED: 0.6, COMPARED: 0.8, REPAIRED: 0.9 } as const;

interface Fixed {
  readonly leaks: number;
  readonly corruptions: number;
}

/** All is right: the dirty and the corrupt bit say otherwise no more. */
function clearWarningBits(storage: MutableStorage, header: Qcow2Header): void {
  const mask = (1n << BigInt(INCOMPATIBLE.DIRTY)) | (1n << BigInt(INCOMPATIBLE.CORRUPT));
  if (header.version < 3 || (header.incompatibleFeatures & mask) === 0n) return;
  setFeatures(storage, { incompatible: header.incompatibleFeatures & ~mask });
  storage.flush();
}
