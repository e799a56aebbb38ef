/**
 * The operations by path, as libfuse 2 asks for them: each path becomes a node by lookup, and each open file has a
 * number of its own. Answers, or throws an error with an errno.
 */
import { constants } from 'node:fs';
import { basename, dirname } from 'node:path';
import { ImageError } from '../../errors.js';
import type { Changes, NewAttributes } from '../../mount/changes.js';
import { type Node, ROOT_ID, type Timestamp } from '../../mount/node.js';
import { type FileSystemFacts, type Operations, readOnly } from '../../mount/operations.js';
import { IoBuffer } from '../../sys/io-buffer.js';

/** libfuse 2 asks for no more at once; a buffer that is too small grows. */
const REQUEST_SIZE = 128 << 10;
/** fuse-native hands numbers of open files on as 31 bits, and takes 0 for none. */
const LAST_FILE = 0x7fff_ffff;
/** Counts of blocks are handed on as 32 bits. */
const MOST_BLOCKS = 0xffff_ffff;
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;
/** An owner of chown(2) that stays. */
const SAME_ID = 0xffff_ffff;

/** What fuse-native takes for a struct stat. Times in milliseconds. */
export interface Stat {
  readonly ino: number;
  readonly mode: number;
  readonly nlink?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly size?: number;
  readonly blksize?: number;
  readonly blocks?: number;
  readonly atime?: number;
  readonly mtime?: number;
  readonly ctime?: number;
}

export interface Listing {
  readonly names: readonly string[];
  /** Of each name: as much as readdir(3) tells. */
  readonly stats: readonly Stat[];
}

interface OpenFile {
  readonly id: number;
  readonly handle: number;
  readonly path: string;
  /** Opened with O_DSYNC or O_SYNC. */
  readonly durable: boolean;
  /** All of a file that is made when it is read, where the page cache asks for its size before. */
  readonly text?: Buffer | undefined;
}

export class PathFiles {
  readonly #operations: Operations;
  readonly #open = new Map<number, OpenFile>();
  #last = 0;
  #buffer = new IoBuffer(REQUEST_SIZE);

  constructor(operations: Operations) {
    this.#operations = operations;
  }

  getattr(path: string): Stat {
    return this.#operations.within(() => this.#statOf(this.#node(path)));
  }

  access(path: string, mask: number): void {
    this.#operations.within(() => this.#operations.access(this.#node(path).id, mask));
  }

  readdir(path: string): Listing {
    return this.#operations.within(() => {
      const self = this.#operations.directory(this.#node(path).id);
      const names = ['.', '..'];
      const stats: Stat[] = [
        { ino: self.id, mode: S_IFDIR },
        { ino: self.parent, mode: S_IFDIR },
      ];
      for (const { name, id, directory } of this.#operations.readdir(self.id, 0)) {
        names.push(name);
        stats.push({ ino: id, mode: directory ? S_IFDIR : S_IFREG });
      }
      return { names, stats };
    });
  }

  statfs(): FileSystemFacts {
    const facts = this.#operations.within(() => this.#operations.statfs());
    let { blockSize, blocks } = facts;
    for (; blocks > MOST_BLOCKS; blockSize *= 2) blocks = Math.ceil(blocks / 2);
    return { ...facts, blockSize, blocks };
  }

  /** Answers the open file's number. */
  open(path: string, flags: number): number {
    const { id } = this.#operations.within(() => this.#node(path));
    const { handle, lasting } = this.#operations.open(id, flags);
    // O_SYNC holds it, too. Whether that is set later is not heard of.
    const durable = (flags & constants.O_DSYNC) !== 0;
    const isCached = this.#operations.changes === null;
    const text = isCached && !lasting ? this.#textOf(id, handle) : undefined;
    return this.#opened({ id, handle, path, durable, text });
  }

  create(path: string): number {
    const { id } = this.#changes.snapshots.create(this.#parent(path), basename(path), true);
    return this.#opened({ id, handle: 0, path, durable: false });
  }

  release(file: number): void {
    const { id, handle } = this.#file(file);
    this.#open.delete(file);
    this.#operations.release(id, handle);
  }

  /** Answers how many bytes there were. */
  read(file: number, target: Uint8Array, length: number, offset: number): number {
    const { id, handle, text } = this.#file(file);
    if (text !== undefined) return text.copy(target, 0, offset, offset + length);
    const buffer = this.#bufferFor(length);
    const count = this.#operations.within(() =>
      this.#operations.read(id, offset, length, buffer, 0, handle),
    );
    target.set(buffer.bytes.subarray(0, count));
    return count;
  }

  write(file: number, source: Uint8Array, length: number, offset: number): number {
    const changes = this.#changes;
    const { id, handle, durable } = this.#file(file);
    const buffer = this.#bufferFor(length);
    buffer.bytes.set(source.subarray(0, length));
    return changes.write(id, handle, offset, length, buffer, 0, durable);
  }

  flush(file: number): void {
    this.#operations.changes?.close(this.#file(file).handle);
  }

  fsync(): void {
    this.#operations.changes?.flush();
  }

  truncate(path: string, size: number): void {
    this.#setAttributes(path, { size });
  }

  ftruncate(path: string, file: number, size: number): void {
    this.#setAttributes(path, { size }, this.#file(file).handle);
  }

  chmod(path: string, mode: number): void {
    this.#setAttributes(path, { mode });
  }

  chown(path: string, uid: number, gid: number): void {
    const given = (id: number): number | undefined => (id === SAME_ID ? undefined : id);
    this.#setAttributes(path, { uid: given(uid), gid: given(gid) });
  }

  /** Times are taken and forgotten: those shown are the image's, and change with what is written. */
  utimens(path: string): void {
    this.#setAttributes(path, {});
  }

  mknod(path: string, mode: number): void {
    const { snapshots } = this.#changes;
    if ((mode & S_IFMT) !== S_IFREG) this.forbidden();
    snapshots.create(this.#parent(path), basename(path), false);
  }

  unlink(path: string): void {
    this.#changes.snapshots.remove(this.#parent(path), basename(path));
  }

  rename(from: string, to: string): void {
    const { snapshots } = this.#changes;
    const [parent, newParent] = [this.#parent(from), this.#parent(to)];
    snapshots.rename(parent, basename(from), newParent, basename(to), 0);
  }

  /** Into `target`, unless that has no room at all; answers how many bytes it takes. */
  getxattr(path: string, name: string, target: Uint8Array): number {
    const value = this.#operations.within(() => {
      return this.#operations.getxattr(this.#node(path).id, name);
    });
    return sized(value, target);
  }

  listxattr(path: string, target: Uint8Array): number {
    const names = this.#operations.within(() => {
      return this.#operations.listxattr(this.#node(path).id);
    });
    return sized(names.map((name) => `${name}\0`).join(''), target);
  }

  setxattr(path: string, name: string, value: Uint8Array): void {
    const { snapshots } = this.#changes;
    const { id } = this.#operations.within(() => this.#node(path));
    // Who asks, fuse-native does not tell.
    snapshots.control(id, name, Buffer.from(value).toString(), 0);
  }

  removexattr(): never {
    void this.#changes;
    throw new ImageError('unsupported', 'EOPNOTSUPP', 'not supported');
  }

  /** What cannot be done even where one can write: only disks and snapshots can be changed. */
  forbidden(): never {
    void this.#changes;
    throw new ImageError('policy', 'EPERM', 'only snapshots can be made here');
  }

  get #changes(): Changes {
    return this.#operations.changes ?? readOnly();
  }

  #setAttributes(path: string, wanted: NewAttributes, handle = 0): void {
    const changes = this.#changes;
    const node = this.#operations.within(() => this.#node(path));
    changes.setAttributes(node, handle, wanted);
  }

  #opened(file: OpenFile): number {
    do this.#last = (this.#last % LAST_FILE) + 1;
    while (this.#open.has(this.#last));
    this.#open.set(this.#last, file);
    return this.#last;
  }

  #file(number: number): OpenFile {
    const file = this.#open.get(number);
    if (file === undefined) throw new ImageError('invalid', 'EBADF', `no open file ${number}`);
    return file;
  }

  /** A partition that is open stays, though the table may have none of that name any more. */
  #node(path: string): Node {
    try {
      return this.#lookup(path);
    } catch (error) {
      for (const file of this.#open.values()) {
        if (file.path === path) return this.#operations.node(file.id);
      }
      throw error;
    }
  }

  #lookup(path: string): Node {
    let node = this.#operations.node(ROOT_ID);
    for (const name of path.split('/').filter(Boolean)) {
      node = this.#operations.lookup(node.id, name);
    }
    return node;
  }

  #parent(path: string): number {
    return this.#operations.within(() => this.#lookup(dirname(path))).id;
  }

  #bufferFor(length: number): IoBuffer {
    if (length > this.#buffer.length) this.#buffer = new IoBuffer(length);
    return this.#buffer;
  }

  #statOf(node: Node): Stat {
    const { attributes } = node;
    const { ino, mode, nlink, uid, gid, blksize, blocks } = attributes;
    const [atime, mtime, ctime] = [attributes.atime, attributes.mtime, attributes.ctime].map(
      milliseconds,
    ) as [number, number, number];
    const size = this.#sizeOf(node);
    return { ino, mode, nlink, uid, gid, size, blksize, blocks, atime, mtime, ctime };
  }

  /** The page cache shows no more of a file than its size, and asks for that again where a file seems to end. */
  #sizeOf(node: Node): number {
    let { size } = node.attributes;
    for (const { id, text } of this.#open.values()) if (id === node.id) size = text?.length ?? size;
    return size;
  }

  #textOf(id: number, handle: number): Buffer {
    const pieces: Buffer[] = [];
    for (let offset = 0; ; ) {
      const buffer = this.#bufferFor(REQUEST_SIZE);
      const count = this.#operations.within(() =>
        this.#operations.read(id, offset, REQUEST_SIZE, buffer, 0, handle),
      );
      if (count === 0) return Buffer.concat(pieces);
      pieces.push(Buffer.from(buffer.bytes.subarray(0, count)));
      offset += count;
    }
  }
}

/** Times before 1970 cannot be handed on. */
function milliseconds({ sec, nsec }: Timestamp): number {
  return Math.max(0, sec * 1000 + Math.floor(nsec / 1e6));
}

function sized(text: string, target: Uint8Array): number {
  const bytes = Buffer.from(text);
  if (target.length === 0) return bytes.length;
  if (target.length < bytes.length) {
    throw new ImageError('invalid', 'ERANGE', `value of ${bytes.length} bytes`);
  }
  target.set(bytes);
  return bytes.length;
}
