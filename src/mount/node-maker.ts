/** Makes nodes with honest attributes: sizes, space, times, owner, and the image's facts. */
import type { ImageDescription } from '../image/description.js';
import type { Snapshot } from '../image/qcow2/snapshots.js';
import { BytesContent, type Content, type Origin } from './content.js';
import { type LiveFacts, liveFacts, type MountFacts } from './facts.js';
import type { Attributes, DirectoryNode, FileNode, Lasting } from './node.js';
import { isMadeOnReading, ROOT_ID, SLOT, viewOf } from './node.js';
import { blocksOf } from './space.js';
import { type LiveNumbers, xattrsOf } from './xattrs.js';

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const ANYBODY_WRITES = 0o222;
/** Of what is not there before somebody opens it. */
const NOTHING = new BytesContent(Buffer.alloc(0));

export class NodeMaker {
  readonly #description: ImageDescription;
  readonly #facts: MountFacts;
  readonly #blksize: number;

  constructor(description: ImageDescription, facts: MountFacts) {
    this.#description = description;
    this.#facts = facts;
    const top = description.layers[0];
    this.#blksize = top.format === 'qcow2' ? Math.max(4096, top.header.geometry.clusterSize) : 4096;
  }

  /** `subfolders`: how many it has, if that is known. */
  directory(
    id: number,
    parent: number,
    { snapshot }: Origin,
    subfolders: number | undefined,
  ): DirectoryNode {
    const { directoryMode, diskMode } = this.#facts;
    // Snapshots are made in their folder; on the root stand the attributes that control the mount.
    const writable = id === ROOT_ID || id === SLOT.SNAPSHOTS ? diskMode & ANYBODY_WRITES : 0;
    const mode = S_IFDIR | directoryMode | writable;
    // As on btrfs, 1 says that links do not tell how many there are.
    const nlink = subfolders === undefined ? 1 : 2 + subfolders;
    const own = { ino: id, mode, size: 0, blocks: 0, nlink };
    const attributes = this.#attributes(own, snapshot, this.#live(id));
    return { kind: 'directory', id, parent, attributes, lasting: this.#lasting(id) };
  }

  file(id: number, parent: number, content: Content, origin: Origin): FileNode {
    const { imageBlocks } = this.#live(id);
    const isRaw = this.#description.layers[0].format === 'raw';
    const blocks = blocksOf(content, origin, { imageBlocks, isRaw });
    return this.#file(id, parent, content, { size: content.size, blocks }, origin);
  }

  /** A file that is made when it is opened; `size`: what is told of it until then. */
  made(id: number, parent: number, size: number, origin: Origin): FileNode {
    return this.#file(id, parent, NOTHING, { size, blocks: 0 }, origin);
  }

  #file(
    id: number,
    parent: number,
    content: Content,
    space: Pick<Attributes, 'size' | 'blocks'>,
    origin: Origin,
  ): FileNode {
    const { fileMode, diskMode } = this.#facts;
    const ofDisk = viewOf(id) === 0 && origin.disk !== undefined;
    const mode = S_IFREG | (ofDisk ? diskMode : fileMode);
    const own = { ino: id, mode, nlink: 1, ...space };
    const attributes = this.#attributes(own, origin.snapshot, this.#live(id));
    return { kind: 'file', id, parent, content, attributes, lasting: this.#lasting(id) };
  }

  xattrs(id: number, origin: Origin, live: LiveNumbers): ReadonlyMap<string, string> {
    return xattrsOf(this.#description, this.#facts, id === ROOT_ID, origin, live);
  }

  /** A snapshot's own attributes and bytes do not change, but its name can, and what is found out of it. */
  #lasting(id: number): Lasting {
    const readOnly = !this.#description.writable;
    const lasts = (readOnly || viewOf(id) > 0) && !isMadeOnReading(id);
    return { name: readOnly, attributes: lasts };
  }

  #live(id: number): LiveFacts {
    const asEver = !this.#description.writable || viewOf(id) > 0;
    return asEver ? this.#facts : liveFacts(this.#description);
  }

  #attributes(
    own: Pick<Attributes, 'ino' | 'mode' | 'size' | 'blocks' | 'nlink'>,
    snapshot: Snapshot | undefined,
    { atime, mtime, ctime, btime }: LiveFacts,
  ): Attributes {
    const { uid, gid } = this.#facts;
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
