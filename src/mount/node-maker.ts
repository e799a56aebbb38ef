/** Makes nodes with honest attributes: sizes, space, times, owner, and the image's facts. */
import type { ImageDescription } from '../image/description.js';
import type { Disk } from '../image/disk.js';
import type { Snapshot } from '../image/qcow2/snapshots.js';
import type { Content, FileOrigin } from './content.js';
import type { MountFacts } from './facts.js';
import type { Attributes, DirectoryNode, FileNode } from './node.js';
import { ROOT_ID } from './node.js';
import { xattrsOf } from './xattrs.js';

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const BLOCK = 512;

/** Looks at the map that one stat may take; beyond, the space is not counted but bounded. */
const SPACE_BUDGET = 4096;

export class NodeMaker {
  readonly #description: ImageDescription;
  readonly #facts: MountFacts;
  readonly #blksize: number;
  readonly #isRaw: boolean;

  constructor(description: ImageDescription, facts: MountFacts) {
    this.#description = description;
    this.#facts = facts;
    const top = description.layers[0];
    this.#isRaw = top.format === 'raw';
    this.#blksize = top.format === 'qcow2' ? Math.max(4096, top.header.geometry.clusterSize) : 4096;
  }

  directory(id: number, parent: number, snapshot?: Snapshot): DirectoryNode {
    const mode = S_IFDIR | this.#facts.directoryMode;
    const attributes = this.#attributes(id, mode, 0, 0, snapshot);
    const xattrs = xattrsOf(this.#description, this.#facts, id === ROOT_ID, {});
    return { kind: 'directory', id, parent, attributes, xattrs };
  }

  file(id: number, parent: number, content: Content, origin: FileOrigin): FileNode {
    const mode = S_IFREG | this.#facts.fileMode;
    const blocks = Math.ceil(this.#space(content, origin) / BLOCK);
    const attributes = this.#attributes(id, mode, content.size, blocks, origin.snapshot);
    const xattrs = xattrsOf(this.#description, this.#facts, id === ROOT_ID, origin);
    return { kind: 'file', id, parent, content, attributes, xattrs };
  }

  /** Bytes that the image holds of the file: counted where that is cheap, else at most so many. */
  #space(content: Content, { disk, start = 0, partition, snapshot }: FileOrigin): number {
    if (disk === undefined) return content.size;
    const most = Math.min(content.size, this.#facts.imageBlocks * BLOCK);
    // The disk takes what its image takes: no map is read for it, however large it is.
    if (partition === undefined && snapshot === undefined) return most;
    try {
      const end = start + content.size;
      const held = this.#isRaw
        ? dataWithin(disk, start, end, SPACE_BUDGET)
        : disk.allocatedWithin(start, end, SPACE_BUDGET);
      // Compressed clusters take less than they hold.
      return Math.min(held ?? most, most);
    } catch {
      return most;
    }
  }

  #attributes(
    ino: number,
    mode: number,
    size: number,
    blocks: number,
    snapshot?: Snapshot,
  ): Attributes {
    const { uid, gid, atime, mtime, ctime, btime } = this.#facts;
    const taken = snapshot && { sec: snapshot.dateSec, nsec: snapshot.dateNsec % 1e9 };
    return {
      ino,
      size,
      blocks,
      mode,
      nlink: (mode & S_IFMT) === S_IFDIR ? 2 : 1,
      uid,
      gid,
      blksize: this.#blksize,
      atime: taken ?? atime,
      mtime: taken ?? mtime,
      ctime: taken ?? ctime,
      btime: taken ?? btime,
    };
  }
}

/** Bytes of [start, end) that are no holes; undefined where finding out takes more than `budget`. */
function dataWithin(disk: Disk, start: number, end: number, budget: number): number | undefined {
  let held = 0;
  for (let at = start; at < end; ) {
    if (budget-- === 0) return undefined;
    const data = disk.seek(at, false, end);
    at = disk.seek(data, true, end);
    held += at - data;
  }
  return held;
}
