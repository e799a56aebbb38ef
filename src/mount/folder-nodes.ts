/** The attributes of folders in a mount of many images: those of the source's folders, and of image files. */
import type { BigIntStats } from 'node:fs';
import type { Folder, ImageFile } from './catalogue.js';
import { type Ownership, timesOf } from './facts.js';
import { memberRoot } from './member-ids.js';
import type { DirectoryNode } from './node.js';

const S_IFDIR = 0o040000;
/** As on btrfs: links do not tell how many folders there are in it. */
const NLINK = 1;

/** Everything comes and goes with the source: nothing is remembered by the kernel. */
const LASTING = { name: false, attributes: false };

export function folderNode(
  { id, parent }: Pick<Folder, 'id' | 'parent'>,
  stat: BigIntStats,
  ownership: Ownership,
): DirectoryNode {
  const { umask } = ownership;
  const mode = umask === undefined ? Number(stat.mode) & 0o555 : 0o555 & ~umask;
  return node(id, parent, mode, stat, ownership);
}

/** Who may read the file may look into it; who may write to it, where one can, may control it. */
export function imageNode(
  { member, folder }: Pick<ImageFile, 'member' | 'folder'>,
  stat: BigIntStats,
  ownership: Ownership,
  writable: boolean,
): DirectoryNode {
  const { umask } = ownership;
  const all = umask === undefined ? Number(stat.mode) & 0o666 : 0o666 & ~umask;
  const read = all & 0o444;
  const mode = read | (read >> 2) | (writable ? all & 0o222 : 0);
  return node(memberRoot(member), folder, mode, stat, ownership);
}

function node(
  id: number,
  parent: number,
  mode: number,
  stat: BigIntStats,
  { uid, gid }: Ownership,
): DirectoryNode {
  return {
    ...{ kind: 'directory', id, parent, lasting: LASTING },
    attributes: {
      ...{ ino: id, size: 0, blocks: 0, mode: S_IFDIR | mode, nlink: NLINK, blksize: 4096 },
      uid: uid ?? Number(stat.uid),
      gid: gid ?? Number(stat.gid),
      ...timesOf(stat),
    },
  };
}
