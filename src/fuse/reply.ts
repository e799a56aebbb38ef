/** Payloads of replies: written straight into the buffer that goes to the kernel. */
import { ImageError } from '../errors.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import type { Attributes, Node } from '../mount/node.js';
import {
  ATTR,
  ATTR_OUT,
  DIRENT,
  DIRENT_TYPE,
  ENTRY_OUT,
  OUT_HEADER,
  STATX_MASK,
  STATX_OUT,
} from './abi.js';

/** Where a reply's payload begins: behind its header. */
export const PAYLOAD = OUT_HEADER.size;

/** Seconds for which the kernel may keep names and attributes that do not change. */
const LASTING_SEC = 3600;

function validSec(lasts: boolean): number {
  return lasts ? LASTING_SEC : 0;
}

export class Reply {
  readonly buffer: IoBuffer;
  /** Bytes of payload so far. */
  length = 0;
  /** Nodes that it tells the kernel of, by their numbers there. */
  readonly entered: number[] = [];
  #base = 0;
  #size = Number.POSITIVE_INFINITY;

  constructor(buffer: IoBuffer) {
    this.buffer = buffer;
  }

  /** What is put in is of a session's nodes: `Session`. */
  begin(base: number, size: number): void {
    this.#base = base;
    this.#size = size;
    if (this.entered.length > 0) this.entered.length = 0;
  }

  get view(): DataView {
    return this.buffer.view;
  }

  /** Puts `size` bytes behind what is there; answers where in the buffer they begin. */
  take(size: number): number {
    const at = PAYLOAD + this.length;
    if (at + size > this.buffer.length) throw new RangeError('reply: no room');
    this.length += size;
    return at;
  }

  text(text: string): void {
    const bytes = Buffer.from(text);
    this.buffer.bytes.set(bytes, this.take(bytes.length));
  }

  /** A fuse_entry_out with its fuse_attr. */
  entry(node: Node): void {
    this.#entryHead(node);
    this.#attributes(node.attributes);
  }

  attr(node: Node): void {
    const at = this.take(ATTR_OUT.size);
    ATTR_OUT.write(this.view, at, { attrValid: validSec(node.lasting.attributes) });
    this.#attributes(node.attributes);
  }

  statx({ attributes, lasting }: Node): void {
    const ino = this.#number(attributes.ino);
    const { size, blocks, mode, nlink, uid, gid, blksize } = attributes;
    const { atime, btime, ctime, mtime } = attributes;
    STATX_OUT.write(this.view, this.take(STATX_OUT.size), {
      attrValid: validSec(lasting.attributes),
      mask: STATX_MASK.BASIC_STATS | STATX_MASK.BTIME,
      ...{ ino, size, blocks, mode, nlink, uid, gid, blksize },
      ...{ atime: atime.sec, atimensec: atime.nsec, btime: btime.sec, btimensec: btime.nsec },
      ...{ ctime: ctime.sec, ctimensec: ctime.nsec, mtime: mtime.sec, mtimensec: mtime.nsec },
    });
  }

  /**
   * A directory entry, if it still fits `room` bytes of payload. `next` is where reading goes on
   * behind it. With `node`, it is an entry of READDIRPLUS; null stands for `.` and `..`, of which
   * the kernel wants no attributes.
   */
  dirent(
    room: number,
    next: number,
    entry: { readonly name: string; readonly id: number; readonly directory: boolean },
    node?: Node | null,
  ): boolean {
    const name = Buffer.from(entry.name);
    const plus = node === undefined ? 0 : ENTRY_OUT.size + ATTR.size;
    const size = Math.ceil((plus + DIRENT.size + name.length) / 8) * 8;
    if (this.length + size > room) return false;
    const start = this.length;
    if (node === null) {
      const at = this.take(plus);
      this.buffer.bytes.fill(0, at, at + plus);
    } else if (node !== undefined) this.entry(node);
    DIRENT.write(this.view, this.take(DIRENT.size), {
      ino: this.#number(entry.id),
      off: next,
      namelen: name.length,
      type: entry.directory ? DIRENT_TYPE.DIRECTORY : DIRENT_TYPE.FILE,
    });
    const at = this.take(start + size - this.length);
    this.buffer.bytes.fill(0, at, PAYLOAD + this.length);
    this.buffer.bytes.set(name, at);
    return true;
  }

  #attributes({ ino, ...attributes }: Attributes): void {
    const at = this.take(ATTR.size);
    ATTR.write(this.view, at, { ino: this.#number(ino), ...attrOf(attributes) });
  }

  #number(id: number): number {
    if (id < this.#size) return this.#base + id;
    throw new ImageError('unsupported', 'EOVERFLOW', 'too many snapshots were taken', {
      limit: 'they can be reached when the image was closed',
    });
  }

  #entryHead({ id, lasting }: Node): void {
    const nodeid = this.#number(id);
    this.entered.push(nodeid);
    ENTRY_OUT.write(this.view, this.take(ENTRY_OUT.size), {
      nodeid,
      entryValid: validSec(lasting.name),
      attrValid: validSec(lasting.attributes),
    });
  }
}

function attrOf(attributes: Omit<Attributes, 'ino'>) {
  const { atime, mtime, ctime, btime, ...rest } = attributes;
  return {
    ...rest,
    ...{ atime: atime.sec, atimensec: atime.nsec, mtime: mtime.sec, mtimensec: mtime.nsec },
    ...{ ctime: ctime.sec, ctimensec: ctime.nsec },
  };
}
