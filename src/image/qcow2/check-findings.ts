/** What a check finds, one by one: facts, which the command line puts in words. */
import type { ClusterUse } from './reference-counts.js';

/** `repairing`: it is being put right, and counts as repaired. Offsets and sizes are bytes. */
export type ScanFinding =
  /** A range that reaches a cluster or more past the end of the file. */
  | {
      readonly kind: 'past-end';
      readonly use: ClusterUse;
      readonly offset: bigint;
      readonly size: number;
    }
  /** A cluster has more references than a refcount can say. */
  | { readonly kind: 'overflow'; readonly offset: number }
  | { readonly kind: 'l1-reserved'; readonly entry: bigint }
  | { readonly kind: 'l2-table-unaligned'; readonly offset: number }
  | { readonly kind: 'l2-reserved'; readonly entry: bigint }
  | { readonly kind: 'data-unaligned'; readonly offset: number }
  /** The same of a cluster that reads as zeroes: nothing is lost without it. */
  | { readonly kind: 'zero-unaligned'; readonly offset: number; readonly repairing: boolean }
  | { readonly kind: 'compressed-copied'; readonly offset: bigint }
  /** `index`: in its L2 table. */
  | { readonly kind: 'compressed-external'; readonly index: number; readonly entry: bigint }
  | { readonly kind: 'compressed-bitmap'; readonly index: number; readonly entry: bigint }
  /** Subclusters both allocated and zero. */
  | { readonly kind: 'subclusters-both'; readonly offset: number }
  | { readonly kind: 'subclusters-unallocated' }
  | { readonly kind: 'snapshots-external'; readonly count: number }
  | {
      readonly kind: 'snapshot-l1-unaligned';
      readonly id: string;
      readonly name: string;
      readonly offset: bigint;
    }
  | {
      readonly kind: 'snapshot-l1-large';
      readonly id: string;
      readonly name: string;
      /** Entries. */
      readonly l1Size: number;
    }
  /** An entry of the table of a bitmap. */
  | { readonly kind: 'bitmap-entry'; readonly name: string; readonly entry: bigint }
  /** `index`: in the refcount table. */
  | { readonly kind: 'block-reserved'; readonly index: number }
  | { readonly kind: 'block-unaligned'; readonly index: number }
  | { readonly kind: 'block-outside'; readonly index: number; readonly repairing: boolean }
  | { readonly kind: 'block-shared'; readonly index: number; readonly references: number };

export type RefcountFinding =
  | {
      readonly kind: 'refcount';
      readonly cluster: number;
      readonly refcount: number;
      readonly references: number;
      readonly repairing: boolean;
    }
  /** A block that cannot be read; told once, before its clusters. */
  | { readonly kind: 'block-unreadable'; readonly index: number; readonly offset: bigint }
  | { readonly kind: 'refcount-unknown'; readonly cluster: number }
  | { readonly kind: 'rebuilding' }
  /** The refcounts can be repaired only by a rebuild, which was not asked for. */
  | { readonly kind: 'rebuild-needed' };

export type CopiedFinding =
  | {
      readonly kind: 'copied-l2';
      readonly l1Index: number;
      readonly entry: bigint;
      readonly refcount: number;
      readonly repairing: boolean;
    }
  | {
      readonly kind: 'copied-data';
      readonly entry: bigint;
      readonly refcount: number;
      readonly repairing: boolean;
    };

export type SnapshotFinding =
  /** `tooBig`: the table is; otherwise there are more than there can be. */
  | { readonly kind: 'snapshots-discarded'; readonly count: number; readonly tooBig: boolean }
  | { readonly kind: 'snapshot-extra-discarded'; readonly index: number; readonly size: number }
  | { readonly kind: 'snapshot-incomplete'; readonly index: number; readonly repairing: boolean };

export type Finding = ScanFinding | RefcountFinding | CopiedFinding | SnapshotFinding;

export type Report<F extends Finding = Finding> = (finding: F) => void;
