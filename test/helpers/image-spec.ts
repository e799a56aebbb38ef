/** What an image is to hold: the input of the image builder. Sizes and offsets are bytes. */
import type { ValuesOf } from '#src/codec/struct.js';
import type { FeatureName } from '#src/image/qcow2/extensions.js';
import type {
  BITMAP_DIRECTORY_ENTRY,
  HEADER,
  HEADER_V3,
  SNAPSHOT_HEADER,
} from '#src/image/qcow2/layout.js';

/**
 * A guest cluster. Where the same object stands at several places, they share the host cluster.
 * `bytes` may be shorter than a cluster: zeroes follow.
 */
export type ClusterSpec =
  | { readonly kind: 'data'; readonly bytes: Uint8Array }
  | { readonly kind: 'zero'; readonly preallocated?: boolean }
  /** `stored`: what lies in the file instead of the compressed bytes. */
  | { readonly kind: 'compressed'; readonly bytes: Uint8Array; readonly stored?: Uint8Array }
  /** Extended L2 entries only. `allocated`, `zero`: masks of the 32 subclusters. */
  | {
      readonly kind: 'subclusters';
      readonly bytes: Uint8Array;
      readonly allocated: number;
      readonly zero: number;
      /** Leave the whole cluster without a host cluster. */
      readonly hostless?: boolean;
    }
  /** An L2 entry as it is. */
  | { readonly kind: 'entry'; readonly entry: bigint; readonly bitmap?: bigint };

/** By guest cluster index. */
export type Clusters = ReadonlyMap<number, ClusterSpec>;

export interface SnapshotSpec {
  readonly id: string;
  readonly name: string;
  readonly clusters?: Clusters;
  /** The disk's size then; the image's where it is not given. */
  readonly diskSize?: number;
  readonly vmStateSize?: number;
  /** By cluster of the VM state, from 0. */
  readonly vmState?: Clusters;
  /** 16 at first, as version 3 asks for: the VM state's and the disk's size. 24: icount too. */
  readonly extraDataSize?: number;
  readonly icount?: bigint;
  /** Fields of the table's entry, over everything else. */
  readonly fields?: Partial<ValuesOf<typeof SNAPSHOT_HEADER.fields>>;
}

export interface BitmapSpec {
  readonly name: string;
  readonly granularityBits?: number;
  readonly extraData?: Uint8Array;
  readonly fields?: Partial<ValuesOf<typeof BITMAP_DIRECTORY_ENTRY.fields>>;
}

export type HeaderFields = ValuesOf<typeof HEADER.fields> &
  ValuesOf<typeof HEADER_V3.fields> & { readonly compressionType: number };

export interface ImageSpec {
  readonly size: number;
  readonly version?: 2 | 3;
  readonly clusterBits?: number;
  readonly refcountOrder?: number;
  readonly extendedL2?: boolean;
  readonly compression?: 'zlib' | 'zstd';
  readonly clusters?: Clusters;
  readonly snapshots?: readonly SnapshotSpec[];
  readonly bitmaps?: readonly BitmapSpec[];
  readonly backing?: { readonly name: string; readonly format?: string };
  /** Guest clusters lie in another file, which the builder makes too. */
  readonly dataFile?: { readonly name: string; readonly raw?: boolean };
  readonly featureNames?: readonly FeatureName[];
  /** Further header extensions, known or not. */
  readonly extensions?: readonly { readonly type: number; readonly data: Uint8Array }[];
  /** Header bytes behind those that are known: `headerLength` grows by them. */
  readonly headerTail?: Uint8Array;
  /** Entries of the L1 table: as many as the size needs where it is not given. */
  readonly l1Size?: number;
  /** Header fields, over everything else. */
  readonly header?: Partial<HeaderFields>;
  /** End the file with its last data, not with a whole cluster. */
  readonly trimmed?: boolean;
}

/** Host offsets of what was built. */
export interface Places {
  l1Table: number;
  /** The L2 tables of the active disk, by L1 index. */
  readonly l2Tables: Map<number, number>;
  refcountTable: number;
  refcountBlocks: number[];
  snapshotTable: number;
  /** Of each entry of the snapshot table. */
  readonly snapshotEntries: number[];
  readonly snapshotL1Tables: number[];
  bitmapDirectory: number;
  /** Data clusters and compressed data of the active disk, by guest cluster. */
  readonly clusters: Map<number, number>;
}

export interface BuiltImage {
  readonly bytes: Buffer;
  /** The external data file's bytes, if there is one. */
  readonly dataFile: Buffer | null;
  readonly places: Places;
}
