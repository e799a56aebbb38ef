/** What is to be opened, in full: what `driver=…,file.filename=…` and `json:{…}` can say of an image. */
import type { KeyRing } from './crypto/key-ring.js';
import type { FaultPlan } from '../storage/faults.js';
import type { WriteOptions } from './write-options.js';

/** The part of a file that is taken for the whole. */
export interface Window {
  /** Bytes. */
  readonly offset: number;
  /** Bytes; to the file's end where it is not given. */
  readonly size?: number;
}

/** The geometry in cylinders, heads and sectors, or the size that is stated. */
export const VHD_SIZES = ['chs', 'current_size'] as const;
export type VhdSize = (typeof VHD_SIZES)[number];

/** What is said of an image's encryption. */
export interface EncryptionSpec {
  /** The image must be encrypted so. */
  readonly format?: string | undefined;
  /** The id of the secret that opens it. */
  readonly secret?: string | undefined;
}

/** How QEMU calls the ways to a file: each asks for another kind of it. */
export type FileDriver = 'file' | 'host_device' | 'host_cdrom';

export function isFileDriver(driver: string | undefined): driver is FileDriver {
  return driver === 'file' || driver === 'host_device' || driver === 'host_cdrom';
}

/** A disk of no file: it reads as zeroes, and what is written to it is gone. */
export interface NullDisk {
  /** Bytes. */
  readonly size: number;
  /** Whether it says that it is zeroes, as a hole does. */
  readonly isHole: boolean;
}

/** Where bytes come from. */
export interface FileSpec {
  /** Of the file; the name of a null disk. */
  readonly path: string;
  /** A regular file or a block device where it is not given. */
  readonly driver?: FileDriver | undefined;
  readonly nullDisk?: NullDisk | undefined;
  /** Where it fails on purpose. */
  readonly faults?: FaultPlan | undefined;
}

/** What an open image is called, for who opens it anew. */
export interface NodeNames {
  readonly nodeName?: string | undefined;
  /** Of what it stands on. */
  readonly fileNodeName?: string | undefined;
}

export interface ImageSpec extends FileSpec, NodeNames {
  /** The image's name in messages: the user's own words. */
  readonly filename: string;
  /** Probed where it is not given. */
  readonly format?: string | undefined;
  readonly window?: Window | undefined;
  /** Where a VHD image's size is taken from; by who made it, where it is not given. */
  readonly sizeFrom?: VhdSize | undefined;
  /** Instead of what the image says of its backing file; null for none. */
  readonly backing?: BackingSpec | null | undefined;
  /** Instead of the data file that the image names. */
  readonly dataFile?: FileSpec | undefined;
  readonly encryption?: EncryptionSpec | undefined;
  /** For all layers; of the image itself alone. */
  readonly keys?: KeyRing | undefined;
  readonly readOnly?: boolean | undefined;
  /** Read it though another process writes to it. False: who asks could say so, and is told that. */
  readonly forceShare?: boolean | undefined;
  /** False: take no locks. */
  readonly locking?: boolean | undefined;
  readonly write?: Partial<WriteOptions> | undefined;
  /** Where requests to the disk fail on purpose. */
  readonly requestFaults?: FaultPlan | undefined;
  /** Bytes: zeroes that do not fill as many are written. */
  readonly zeroUnit?: number | undefined;
  /** What is read from below is kept in the image. */
  readonly copyOnRead?: boolean | undefined;
  /** What is written is compressed, whole clusters of it. */
  readonly compress?: boolean | undefined;
  /** Bytes of the metadata cache. */
  readonly cacheSize?: number | undefined;
  /** Bytes of L2 tables that QEMU would load at once: only checked. */
  readonly l2EntrySize?: number | undefined;
  /** Bytes of refcounts that QEMU would keep: only checked. */
  readonly refcountCacheSize?: number | undefined;
}

/** A backing file: another one, or (without a path) the one that the image names, opened so. */
export type BackingSpec = Omit<ImageSpec, 'path'> & { readonly path?: string };

/** An image by its file's name alone. */
export function specOf(image: string | ImageSpec): ImageSpec {
  return typeof image === 'string' ? { path: image, filename: image } : image;
}
