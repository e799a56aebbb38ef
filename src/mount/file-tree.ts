/** A tree of files, as far as the operations ask, and files in it that are made when they are opened. */
import type { Disk } from '../image/disk.js';
import type { ImageCounters } from '../shared/image-counters.js';
import type { Content } from './content.js';
import type { Entry } from './entry.js';
import type { Node } from './node.js';

/** Files whose bytes are found out when they are opened (`isMadeOnReading`). */
export interface MadeFiles {
  /** Opens a file that there is; answers the handle by which it is read: an even number above 0. */
  open(id: number): number;
  /** What is read of it from byte `offset` on. */
  content(id: number, handle: number, offset: number): Content;
}

export interface FileTree {
  readonly rootId: number;
  /** Those to which a file belongs that is made when it is opened. */
  madeFiles(id: number): MadeFiles;
  /** Where this thread counts what is read and written. */
  readonly counters: Pick<ImageCounters, 'read'>;
  /**
   * Must surround everything else here, and be left before anything is changed. Does not nest.
   */
  enter(): void;
  leave(): void;
  /** The node of that number; undefined where there is none. Throws where it cannot be read. */
  node(id: number): Node | undefined;
  /** The number that a node called `name` in a directory has; there need not be one. */
  lookup(directory: number, name: string): number | undefined;
  /** The entries of a directory from place `from` on, 0 or an entry's `next`. */
  list(directory: number, from: number): Iterable<Entry>;
  /** What the file of that number holds; undefined where there is none, or it is no file. */
  content(id: number): Content | undefined;
  /** The extended attributes of a node that there is. */
  xattrs(id: number): ReadonlyMap<string, string>;
  /** Whether the file shows bytes of a disk, or of a VM state: those of `viewOf(id)`. */
  isOfView(id: number): boolean;
  /** Whether what a node shows stays what it is while nothing is written. */
  lasts(id: number): boolean;
  /** What the mount has done so far, as JSON. */
  status(): string;
  /** What statfs tells the size of. */
  readonly disk: Pick<Disk, 'size'>;
  /** Files below the root, not counting folders' contents. */
  readonly rootFiles: number;
}
