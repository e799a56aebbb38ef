/**
 * What a format other than qcow2 and raw brings: one record each (`formats.ts` lists them). Its headers are
 * read once, into plain data that every thread is given; each thread then makes its own mapping of it.
 */
import type { SliceCache } from '../shared/slice-cache.js';
import type { ImageLock } from '../shared/image-lock.js';
import type { ImageState } from '../shared/image-state.js';
import type { FilePatches } from '../storage/patched.js';
import type { MutableStorage, Storage } from '../storage/storage.js';
import type { CheckResult, ReportFormat } from './check-result.js';
import type { ImageKey } from './crypto/cipher-key.js';
import type { Disk } from './disk.js';
import type { Mapping } from './extent.js';
import type { VhdSize } from './spec.js';
import type { WriteOptions } from './write-options.js';
import type { ImageWriter } from './writer.js';

/** As QEMU calls them. */
export const OTHER_FORMATS = [
  'qed',
  'qcow',
  'vdi',
  'vpc',
  'vmdk',
  'vhdx',
  'parallels',
  'bochs',
  'cloop',
] as const;
export type OtherFormat = (typeof OTHER_FORMATS)[number];

/** A backing file as a header names it. */
export interface NamedBacking {
  readonly name: string;
  /** Null where the header leaves it open. */
  readonly format: string | null;
}

/** What a format's header tells, in the terms that all formats have. Sizes are bytes. */
export interface FormatFacts {
  /** Of the disk. */
  readonly size: number;
  /** Null where space is not given out in clusters. */
  readonly clusterSize: number | null;
  readonly backing: NamedBacking | null;
  /** It was not closed cleanly. */
  readonly dirty: boolean;
  readonly encrypted: boolean;
  /** Its data lies in the file as on the disk, holes too. */
  readonly hasHostHoles?: boolean;
  /** QEMU has no word on whether images of the format were closed cleanly. */
  readonly dirtyUntold?: boolean;
}

/** Those of an image that stands alone and is in order; a driver says what is otherwise. */
export const PLAIN_FACTS = {
  clusterSize: null,
  backing: null,
  dirty: false,
  encrypted: false,
} as const;

/** A fact of one format alone. One that is undefined is not told. */
export type FormatFact = string | number | boolean | undefined | readonly FormatFactList[];
export interface FormatFactList {
  readonly [name: string]: FormatFact;
}

/** An opened image, as plain data. `layout` is the driver's own. */
export interface FormatParts {
  readonly facts: FormatFacts;
  /** What its file is to be read with, where that is not as it stands. */
  readonly patches?: FilePatches;
  readonly layout: object;
}

/** How an image is opened. */
export interface OpenHow {
  /** The key of an encrypted one; null where only its headers are looked at. */
  readonly key: () => ImageKey | null;
  /** The image has no magic yet: it is being filled. */
  readonly unfinished: boolean;
  readonly sizeFrom: VhdSize | undefined;
  /** Opens a file that the image names, under the policy: its number among these, the same for the same name. */
  readonly openExtent: (name: string) => { readonly file: number; readonly storage: Storage };
}

/** A file whose tables the shared cache knows by a number. */
export interface SourceFile {
  readonly storage: Storage;
  readonly file: number;
}

/** What a mapping reads from, in one thread: the layer's own file, and others. */
export interface FormatSource extends SourceFile {
  readonly cache: SliceCache;
  /** Files that the image names, in the order of their numbers. */
  readonly extents: readonly SourceFile[];
  /** Bytes of the disk, where that can change; and how often compressed data came to where other was. */
  readonly disk?: { readonly size: number; readonly compressedEpoch: number } | null;
}

/** What a check reads, and repairs. */
export interface CheckedSource extends FormatSource {
  readonly storage: MutableStorage;
}

/** What a writer works on, in one thread. */
export interface FormatTarget {
  readonly storage: MutableStorage;
  readonly cache: SliceCache;
  readonly state: ImageState;
  readonly lock: ImageLock;
  readonly options: WriteOptions;
  readonly disk: Disk;
  /** See `metadata-map.ts`. */
  readonly metadata: SharedArrayBuffer;
}

/** How the entries of a format's tables lie in the file. */
export type TableOrder = 'big64' | 'big32' | 'little';

export interface FormatWriting {
  /** Puts an image in order that was not closed cleanly. Throws where it cannot be written to. */
  readonly prepare: (storage: MutableStorage, parts: FormatParts) => FormatParts;
  readonly writer: (parts: FormatParts, target: FormatTarget) => ImageWriter;
  /** What an image begins with that is no unfinished one. */
  readonly magic: Uint8Array;
}

export interface FormatDriver {
  readonly format: OtherFormat;
  readonly tableOrder: TableOrder;
  /** Reads and checks the headers. Throws an ImageError. */
  open(storage: MutableStorage, how: OpenHow): FormatParts;
  /** The map of the disk. `layout`: as `open` made it. */
  mapping(layout: object, source: FormatSource): Mapping;
  /**
   * Counts what is in use and what is wrong, and with `fix` puts right what can be. Formats without it have
   * no checks. Throws an ImageError where the check comes to no end.
   */
  readonly check?: (
    source: CheckedSource,
    parts: FormatParts,
    fix: boolean,
    report: ReportFormat,
  ) => CheckResult;
  /** Why what its backing file holds cannot be its disk's; null where it can. `below`: null of raw and qcow2. */
  readonly refusesBacking?: (
    parts: FormatParts,
    below: (FormatParts & { readonly format: OtherFormat }) | null,
  ) => string | null;
  /** Formats without it are read-only. */
  readonly writing?: FormatWriting;
  /** What `info` tells beside: by QEMU's names. `filename`: the image's, as it is shown; `files`: of extents. */
  readonly specific?: (
    parts: FormatParts,
    filename: string,
    files: readonly string[],
  ) => FormatFactList;
}

/** A driver by what its layout is: nobody else looks into that. */
export function defineFormat<L extends object>(driver: {
  readonly format: OtherFormat;
  readonly tableOrder: TableOrder;
  readonly open: (storage: MutableStorage, how: OpenHow) => FormatParts & { readonly layout: L };
  readonly mapping: (layout: L, source: FormatSource) => Mapping;
  readonly check?: (
    layout: L,
    source: CheckedSource,
    report: ReportFormat,
    fix: boolean,
  ) => CheckResult;
  readonly refusesBacking?: (
    layout: L,
    below: Parameters<NonNullable<FormatDriver['refusesBacking']>>[1],
  ) => string | null;
  readonly prepare?: (
    storage: MutableStorage,
    parts: FormatParts & { readonly layout: L },
  ) => FormatParts;
  readonly writer?: (layout: L, target: FormatTarget) => ImageWriter;
  readonly magic?: Uint8Array;
  readonly specific?: (layout: L, filename: string, files: readonly string[]) => FormatFactList;
}): FormatDriver {
  const { format, tableOrder, open, check, specific, prepare, writer, magic, refusesBacking } =
    driver;
  return {
    format,
    tableOrder,
    open,
    mapping: (layout, source) => driver.mapping(layout as L, source),
    ...(check && {
      check: (source, { layout }, fix, report) => check(layout as L, source, report, fix),
    }),
    ...(refusesBacking && {
      refusesBacking: ({ layout }, below) => refusesBacking(layout as L, below),
    }),
    ...(prepare &&
      writer &&
      magic && {
        writing: {
          prepare: (storage, { facts, layout }) => prepare(storage, { facts, layout: layout as L }),
          writer: ({ layout }, target) => writer(layout as L, target),
          magic,
        },
      }),
    ...(specific && {
      specific: ({ layout }, filename, files) => specific(layout as L, filename, files),
    }),
  };
}
