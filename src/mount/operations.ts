/**
 * What the file system does, free of any transport: every operation answers or throws an error with
 * an errno. One instance per thread, no state of its own: any thread serves any request.
 */
import { constants } from 'node:fs';
import { ImageError } from '../errors.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import type { DirectoryNode, FileNode, Node } from './node.js';
import type { Entry, Tree } from './tree.js';
import { XATTR_PREFIX } from './xattrs.js';

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const W_OK = 2;
const X_OK = 1;
const ANYBODY_EXECUTES = 0o111;

/** What statfs tells. Sizes in units of `blockSize` bytes. */
export interface FileSystemFacts {
  readonly blockSize: number;
  readonly blocks: number;
  readonly files: number;
  readonly nameMax: number;
}

export class Operations {
  readonly #tree: Tree;

  constructor(tree: Tree) {
    this.#tree = tree;
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

  /** Opening for anything but reading is refused. */
  open(id: number, flags: number): void {
    this.#file(id);
    if ((flags & (constants.O_WRONLY | constants.O_RDWR | constants.O_TRUNC)) !== 0) readOnly();
  }

  /**
   * Reads at most `length` bytes at `offset` into `target` from byte `at` on; answers how many there
   * were before the end.
   */
  read(id: number, offset: number, length: number, target: IoBuffer, at: number): number {
    const { content } = this.#file(id);
    const present = Math.min(length, content.size - offset);
    if (present <= 0) return 0;
    content.read(offset, present, target, at);
    return present;
  }

  /** SEEK_DATA and SEEK_HOLE; the kernel does the others itself. */
  lseek(id: number, offset: number, whence: number): number {
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) {
      throw new ImageError('invalid', 'EINVAL', `lseek: unknown whence ${whence}`);
    }
    const { content } = this.#file(id);
    const hole = whence === SEEK_HOLE;
    const found = offset < content.size ? content.seek(offset, hole) : content.size;
    if (offset >= content.size || (!hole && found >= content.size)) {
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
    const value = name.startsWith(XATTR_PREFIX) ? this.#xattrs(id).get(name) : undefined;
    if (value === undefined) throw new ImageError('missing', 'ENODATA', `no attribute '${name}'`);
    return value;
  }

  listxattr(id: number): string[] {
    return [...this.#xattrs(id).keys()];
  }

  /** Who asks is checked by the kernel (`default_permissions`): here it is what nobody may. */
  access(id: number, mask: number): void {
    const { mode } = this.node(id).attributes;
    if ((mask & W_OK) !== 0) readOnly();
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
