/** What a VMDK image's disk is made of, as plain data. Sizes and offsets are bytes. */

/** Where grains are found. */
export interface GrainTables {
  /** Of a grain. */
  readonly grainSize: number;
  readonly directory: number;
  readonly entriesPerTable: number;
}

/** A run of the disk that lies in a file as it is. */
export interface FlatExtent {
  readonly kind: 'flat';
  readonly size: number;
  /** Where it begins in its file. */
  readonly start: number;
}

/** Grains by a directory of tables, 32 bits to an entry. */
export interface SparseExtent extends GrainTables {
  readonly kind: 'sparse';
  readonly size: number;
  readonly zeroGrains: boolean;
  readonly compressed: boolean;
  /** Compressed grains have a marker before them. */
  readonly markers: boolean;
}

/** The same with 64 bits, as ESXi writes it. */
export interface SeSparseExtent extends GrainTables {
  readonly kind: 'sesparse';
  readonly size: number;
  /** What tables and grains are counted from. */
  readonly tables: number;
  readonly grains: number;
}

export type ExtentBody = FlatExtent | SparseExtent | SeSparseExtent;

/** One extent of the disk: they lie one behind the other. */
export interface DiskExtent {
  readonly body: ExtentBody;
  /** The number of its file among those that the descriptor names; null for the image's own. */
  readonly file: number | null;
  /** As the descriptor calls it; empty where there is none. */
  readonly type: string;
}

export interface VmdkLayout {
  readonly size: number;
  readonly extents: readonly DiskExtent[];
  readonly cid: number;
  readonly parentCid: number;
  readonly createType: string;
}
