/** What is to be opened, in full: what `driver=…,file.filename=…` and `json:{…}` can say of an image. */
import type { KeyRing } from './crypto/key-ring.js';
import type { WriteOptions } from './write-options.js';

/** The part of a file that is taken for the whole. */
export interface Window {
  /** Bytes. */
  readonly offset: number;
  /** Bytes; to the file's end where it is not given. */
  readonly size?: number;
}

/** What is said of an image's encryption. */
export interface EncryptionSpec {
  /** The image must be encrypted so. */
  readonly format?: string | undefined;
  /** The id of the secret that opens it. */
  readonly secret?: string | undefined;
}

export interface ImageSpec {
  /** Of the file. */
  readonly path: string;
  /** The image's name in messages: the user's own words. */
  readonly filename: string;
  /** Probed where it is not given. */
  readonly format?: string | undefined;
  readonly window?: Window | undefined;
  /** Instead of what the image says of its backing file; null for none. */
  readonly backing?: BackingSpec | null | undefined;
  /** Instead of the data file that the image names. */
  readonly dataFile?: string | undefined;
  readonly encryption?: EncryptionSpec | undefined;
  /** For all layers; of the image itself alone. */
  readonly keys?: KeyRing | undefined;
  readonly readOnly?: boolean | undefined;
  /** Read it though another process writes to it. */
  readonly forceShare?: boolean | undefined;
  /** False: take no locks. */
  readonly locking?: boolean | undefined;
  readonly write?: Partial<WriteOptions> | undefined;
  /** Bytes of the metadata cache. */
  readonly cacheSize?: number | undefined;
  /** Bytes of L2 tables that QEMU would load at once: only checked. */
  readonly l2EntrySize?: number | undefined;
}

/** A backing file: another one, or (without a path) the one that the image names, opened so. */
export type BackingSpec = Omit<ImageSpec, 'path'> & { readonly path?: string };

/** An image by its file's name alone. */
export function specOf(image: string | ImageSpec): ImageSpec {
  return typeof image === 'string' ? { path: image, filename: image } : image;
}
