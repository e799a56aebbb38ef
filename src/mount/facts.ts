/**
 * What the main thread knows of a mount and every worker needs: plain data. Taken once, so that no
 * worker looks at the image's path again.
 */
import { fstatSync, type Stats } from 'node:fs';
import type { ImageDescription } from '../image/description.js';
import type { Timestamp } from './node.js';

export interface Ownership {
  /** Instead of the image's owner. */
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  /** Bits that no file's mode has. */
  readonly umask?: number | undefined;
}

export interface MountFacts {
  readonly uid: number;
  readonly gid: number;
  /** Permission bits of files; folders have search where files have read. */
  readonly fileMode: number;
  readonly directoryMode: number;
  readonly atime: Timestamp;
  readonly mtime: Timestamp;
  readonly ctime: Timestamp;
  readonly btime: Timestamp;
  /** What the image takes on its host, in units of 512 bytes. */
  readonly imageBlocks: number;
  /** Text of the tree's `info.json`. */
  readonly info: string;
  /** The process that serves the mount. */
  readonly pid: number;
  /** Index of the snapshot that is mounted as the disk, if one is. */
  readonly snapshot: number | null;
  /** Whether the mount point is a regular file: the disk itself. */
  readonly rootIsFile: boolean;
  /** The image's file name without its extension. */
  readonly stem: string;
}

/** Gathers what the image's file tells. */
export function gatherFacts(
  description: ImageDescription,
  ownership: Ownership,
  rest: Pick<MountFacts, 'info' | 'pid' | 'snapshot' | 'rootIsFile' | 'stem'>,
): MountFacts {
  const stat = fstatSync(description.layers[0].file.fd);
  const read = stat.mode & 0o444 & ~(ownership.umask ?? 0);
  return {
    uid: ownership.uid ?? stat.uid,
    gid: ownership.gid ?? stat.gid,
    fileMode: read,
    directoryMode: read | (read >> 2),
    ...timesOf(stat),
    imageBlocks: stat.blocks,
    ...rest,
  };
}

function timesOf(stat: Stats) {
  return {
    atime: timestamp(stat.atimeMs),
    mtime: timestamp(stat.mtimeMs),
    ctime: timestamp(stat.ctimeMs),
    btime: timestamp(stat.birthtimeMs),
  };
}

function timestamp(milliseconds: number): Timestamp {
  const sec = Math.max(0, Math.floor(milliseconds / 1000));
  return { sec, nsec: Math.max(0, Math.round((milliseconds - sec * 1000) * 1e6)) % 1e9 };
}
