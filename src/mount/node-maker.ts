/** Makes nodes with honest attributes: sizes, space, times, owner, and the image's facts. */
import type { ImageDescription } from '../image/description.js';
import type { Snapshot } from '../image/qcow2/snapshots.js';
import type { Content, Origin } from './content.js';
import type { MountFacts } from './facts.js';
import type { Attributes, DirectoryNode, FileNode } from './node.js';
import { ROOT_ID } from './node.js';
import { blocksOf, type ImageSpace } from './space.js';
import { xattrsOf } from './xattrs.js';

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;

export class NodeMaker {
  readonly #description: ImageDescription;
  readonly #facts: MountFacts;
  readonly #blksize: number;
  readonly #space: ImageSpace;

  constructor(description: ImageDescription, facts: MountFacts) {
    this.#description = description;
    this.#facts = facts;
    const top = description.layers[0];
    this.#space = { imageBlocks: facts.imageBlocks, isRaw: top.format === 'raw' };
    this.#blksize = top.format === 'qcow2' ? Math.max(4096, top.header.geometry.clusterSize) : 4096;
  }

  /** `subfolders`: how many it has, if that is known. */
  directory(
    id: number,
    parent: number,
    { snapshot }: Origin,
    subfolders: number | undefined,
  ): DirectoryNode {
    const mode = S_IFDIR | this.#facts.directoryMode;
    // As on btrfs, 1 says that links do not tell how many there are.
    const nlink = subfolders === undefined ? 1 : 2 + subfolders;
    const attributes = this.#attributes({ ino: id, mode, size: 0, blocks: 0, nlink }, snapshot);
    return { kind: 'directory', id, parent, attributes };
  }

  file(id: number, parent: number, content: Content, origin: Origin): FileNode {
    const mode = S_IFREG | this.#facts.fileMode;
    const blocks = blocksOf(content, origin, this.#space);
    const { size } = content;
    const attributes = this.#attributes({ ino: id, mode, size, blocks, nlink: 1 }, origin.snapshot);
    return { kind: 'file', id, parent, content, attributes };
  }

  xattrs(id: number, origin: Origin): ReadonlyMap<string, string> {
    return xattrsOf(this.#description, this.#facts, id === ROOT_ID, origin);
  }

  #attributes(
    own: Pick<Attributes, 'ino' | 'mode' | 'size' | 'blocks' | 'nlink'>,
    snapshot: Snapshot | undefined,
  ): Attributes {
    const { uid, gid, atime, mtime, ctime, btime } = this.#facts;
    const taken = snapshot && { sec: snapshot.dateSec, nsec: snapshot.dateNsec % 1e9 };
    return {
      ...own,
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
