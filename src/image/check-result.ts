/** What a check of an image's tables finds, in the terms of all formats. */

/** What is put right: nothing, clusters that leak, or all that can be. */
export type Fix = 'none' | 'leaks' | 'all';

export interface CheckResult {
  /** Things that are wrong, or that clusters leak, and are still after a fix. */
  readonly corruptions: number;
  readonly leaks: number;
  /** What could not be checked. */
  readonly checkErrors: number;
  readonly corruptionsFixed: number;
  readonly leaksFixed: number;
  /** Where the last cluster in use ends, in bytes. */
  readonly imageEndOffset: number;
  /** Of the active disk. */
  readonly totalClusters: number;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
}

/** What a check of another format than qcow2 finds, one by one. */
export type FormatFinding =
  /** VDI: an entry names a block that is none, or one that another entry names; blocks are counted wrongly. */
  | { readonly kind: 'vdi-outside'; readonly block: number; readonly entry: number }
  | { readonly kind: 'vdi-twice'; readonly entry: number }
  | { readonly kind: 'vdi-count'; readonly allocated: number; readonly stated: number }
  /** VHDX: a block begins or ends past the end of the file. */
  | {
      readonly kind: 'vhdx-outside';
      readonly entry: number;
      readonly isStart: boolean;
      readonly offset: number;
      readonly fileSize: number;
    }
  /** VHDX: a block lies over headers, the log or a region. */
  | { readonly kind: 'vhdx-overlap'; readonly text: string }
  /** VMDK: of the grain at a sector, the entry means nothing, or leads past the end of its file. */
  | { readonly kind: 'grain-unknown'; readonly sector: number }
  | { readonly kind: 'grain-outside'; readonly sector: number }
  /** Parallels: it was not closed; a block lies past the end of the file; bytes behind the last one are nobody's. */
  | { readonly kind: 'parallels-in-use' }
  | { readonly kind: 'parallels-outside'; readonly block: number }
  | { readonly kind: 'parallels-lost'; readonly length: number };

export type ReportFormat = (finding: FormatFinding) => void;

/** Of an image in which nothing is wrong, and nothing is in use. */
export const NOTHING_FOUND: CheckResult = {
  corruptions: 0,
  leaks: 0,
  checkErrors: 0,
  corruptionsFixed: 0,
  leaksFixed: 0,
  imageEndOffset: 0,
  totalClusters: 0,
  allocatedClusters: 0,
  fragmentedClusters: 0,
  compressedClusters: 0,
};
