/**
 * What the file system does, free of any transport: every operation answers or throws an error with
 * an errno. One instance per thread, no state of its own: any thread serves any request.
 */
import { constants } from 'node:fs';
import { ImageError } from '../errors.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import type { Changes } from './changes.js';
import { type Content, WindowContent } from './content.js';
import type { Entry } from './entry.js';
import type { FileTree } from './file-tree.js';
import {
  type DirectoryNode,
  type FileNode,
  isMadeOnReading,
  isOwnFile,
  type Node,
  partitionOf,
  viewOf,
} from './node.js';
import { CONTROL_FAILURE, STATUS, XATTR_PREFIX } from './xattrs.js';

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const W_OK = 2;
const X_OK = 1;
const ANYBODY_WRITES = 0o222;
const ANYBODY_EXECUTES = 0o111;
const FOR_WRITING = constants.O_WRONLY | constants.O_RDWR | constants.O_TRUNC;

/** What statfs tells. Sizes in units of `blockSize` bytes. */
export interface FileSystemFacts {
  readonly blockSize: number;
  readonly blocks: number;
  readonly files: number;
  readonly nameMax: number;
}

export interface OpenedFile {
  /** What comes back with each request for this open file. */
  readonly handle: number;
  /** Whether its bytes stay what they are, as long as the mount lives. */
  readonly lasting: boolean;
}

export class Operations {
  /** What writes; null in a read-only mount. */
  readonly changes: Changes | null;
  readonly #tree: FileTree;

  constructor(tree: FileTree, changes: Changes | null = null) {
    this.#tree = tree;
    this.changes = changes;
  }

  /**
   * Surrounds everything here but `open`, `release` and what `changes` does, so that nothing is freed
   * that is being read. Does not nest.
   */
  enter(): void {
    this.#tree.enter();
  }

  leave(): void {
    this.#tree.leave();
  }

  /** The same around a body, for who is not in a hurry. */
  within<T>(body: () => T): T {
    this.#tree.enter();
    try {
      return body();
    } finally {
      this.#tree.leave();
    }
  }

  lookup(parent: number, name: string): Node {
    this.directory(parent);
    const id = this.#tree.lookup(parent, name);
    if (id === undefined) throw new ImageError('missing', 'ENOENT', `no file '${name}'`);
    return this.node(id);
  }

  node(id: number): Node {
    const node = this.#tree.node(id);
    if (node === undefined) throw new ImageError('missing', 'ENOENT', `no node ${id}`);
    return node;
  }

  /** Opens a file; what cannot be written is refused to who would. Not to be surrounded. */
  open(id: number, flags: number): OpenedFile {
    const forWriting = (flags & FOR_WRITING) !== 0;
    const { changes } = this;
    if (isMadeOnReading(id)) return this.#openMade(id, forWriting);
    if (changes === null) {
      this.within(() => this.#file(id));
      if (forWriting) readOnly();
      return { handle: 0, lasting: this.lasts(id) };
    }
    const view = viewOf(id);
    const counted = this.#tree.isOfView(id);
    // Before it is looked for: from then on nobody takes it away.
    if (counted) changes.files.open(view);
    try {
      const { content } = this.within(() => this.#file(id));
      if (forWriting && (view !== 0 || !counted)) {
        throw new ImageError('policy', 'EACCES', 'the file is read-only');
      }
      const isPartition = view === 0 && content instanceof WindowContent;
      const handle = isPartition
        ? changes.files.partitionHandle(partitionOf(id), content, forWriting)
        : changes.files.handle(forWriting);
      return { handle, lasting: view !== 0 && this.lasts(id) };
    } catch (error) {
      if (counted) changes.files.close(view);
      throw error;
    }
  }

  /** Whether what a node shows stays what it is while nothing is written. */
  lasts(id: number): boolean {
    return this.#tree.lasts(id);
  }

  #openMade(id: number, forWriting: boolean): OpenedFile {
    const handle = this.within(() => {
      this.#file(id);
      if (forWriting) throw new ImageError('policy', 'EACCES', 'the file is read-only');
      return this.#tree.madeFiles(id).open(id);
    });
    return { handle, lasting: false };
  }

  /** A file is closed for the last time. */
  release(id: number, handle: number): void {
    if (this.#tree.isOfView(id)) this.changes?.files.close(viewOf(id), handle);
  }

  /**
   * Reads at most `length` bytes at `offset` into `target` from byte `at` on; answers how many there
   * were before the end.
   */
  read(
    id: number,
    offset: number,
    length: number,
    target: IoBuffer,
    at: number,
    handle = 0,
  ): number {
    const content = this.#content(id, handle, offset);
    const present = Math.min(length, content.size - offset);
    if (present <= 0) return 0;
    content.read(offset, present, target, at);
    if (!isOwnFile(id)) this.#tree.counters.read(present);
    return present;
  }

  /** SEEK_DATA and SEEK_HOLE; the kernel does the others itself. */
  lseek(id: number, offset: number, whence: number, handle = 0): number {
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) {
      throw new ImageError('invalid', 'EINVAL', `lseek: unknown whence ${whence}`);
    }
    const content = this.#content(id, handle, offset);
    const { size } = content;
    const hole = whence === SEEK_HOLE;
    const found = offset < size ? content.seek(offset, hole) : size;
    if (offset >= size || (!hole && found >= size)) {
      throw new ImageError('missing', 'ENXIO', 'lseek: nothing there up to the end');
    }
    return found;
  }

  /** A directory's entries from a place on, 0 or an entry's `next`; without `.` and `..`. */
  readdir(id: number, from: number): Iterable<Entry> {
    this.directory(id);
    return this.#tree.list(id, from);
  }

  getxattr(id: number, name: string): string {
    // `ls -l` asks for security labels and ACLs of every file.
    const value = name.startsWith(XATTR_PREFIX) ? this.#xattr(id, name) : undefined;
    if (value === undefined) throw new ImageError('missing', 'ENODATA', `no attribute '${name}'`);
    return value;
  }

  #xattr(id: number, name: string): string | undefined {
    if (name === STATUS && id === this.#tree.rootId) return this.#tree.status();
    if (name === CONTROL_FAILURE) return this.changes?.failure(id);
    return this.#xattrs(id).get(name);
  }

  listxattr(id: number): string[] {
    return [...this.#xattrs(id).keys()];
  }

  /** Who asks is checked by the kernel (`default_permissions`): here it is what nobody may. */
  access(id: number, mask: number): void {
    const { mode } = this.node(id).attributes;
    if ((mask & W_OK) !== 0) {
      if (this.changes === null) readOnly();
      if ((mode & ANYBODY_WRITES) === 0) throw new ImageError('policy', 'EACCES', 'not writable');
    }
    if ((mask & X_OK) !== 0 && (mode & ANYBODY_EXECUTES) === 0) {
      throw new ImageError('policy', 'EACCES', 'not executable');
    }
  }

  statfs(): FileSystemFacts {
    const blockSize = 4096;
    const disk = this.#tree.disk;
    return {
      blockSize,
      blocks: Math.ceil(disk.size / blockSize),
      files: this.#tree.rootFiles,
      nameMax: 255,
    };
  }

  directory(id: number): DirectoryNode {
    const node = this.node(id);
    if (node.kind !== 'directory') throw new ImageError('invalid', 'ENOTDIR', 'not a directory');
    return node;
  }

  #xattrs(id: number): ReadonlyMap<string, string> {
    this.node(id);
    return this.#tree.xattrs(id);
  }

  /** Of the open file, if the handle tells, else of the file as it is now. */
  #content(id: number, handle: number, offset: number): Content {
    if (isMadeOnReading(id)) {
      this.#file(id);
      return this.#tree.madeFiles(id).content(id, handle, offset);
    }
    const window = handle === 0 ? undefined : this.changes?.files.window(handle);
    return window ?? this.#tree.content(id) ?? this.#file(id).content;
  }

  #file(id: number): FileNode {
    const node = this.node(id);
    if (node.kind !== 'file') throw new ImageError('invalid', 'EISDIR', 'is a directory');
    return node;
  }
}

/** Answers everything that would write. */
export function readOnly(): never {
  throw new ImageError('policy', 'EROFS', 'the mount is read-only');
}
