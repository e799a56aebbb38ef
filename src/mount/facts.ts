/**
 * What the main thread knows of a mount and every worker needs: plain data. Taken once, so that no
 * worker looks at the image's path again.
 */
import { type BigIntStats, fstatSync } from 'node:fs';
import { filesOf, type ImageDescription } from '../image/description.js';
import { allocateToldSizes } from '../shared/told-sizes.js';
import type { Timestamp } from './node.js';
import type { StatusFacts } from './status.js';
import { allocateTold } from './warn-once.js';

const NS_PER_SEC = 1_000_000_000n;

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
  /** Permission bits of the disk and its partitions: with those for writing, where one can. */
  readonly diskMode: number;
  readonly atime: Timestamp;
  readonly mtime: Timestamp;
  readonly ctime: Timestamp;
  readonly btime: Timestamp;
  /**
   * What the image takes on its host, with its external data file, in units of 512 bytes; null
   * where that is not known: a block device takes none.
   */
  readonly imageBlocks: number | null;
  /** Text of the tree's `info.json`, as long as nothing changes. */
  readonly info: string;
  /** The image as the user named it. */
  readonly imageName: string;
  /** What is told of the mount itself. */
  readonly status: StatusFacts;
  /** Index of the snapshot that is mounted as the disk, if one is. */
  readonly snapshot: number | null;
  /** Whether the mount point is a regular file: the disk itself. */
  readonly rootIsFile: boolean;
  /** The image's file name without its extension. */
  readonly stem: string;
  /** The mount shows other images, too. */
  readonly oneOfMany?: boolean;
  /** Shared: which warnings were told (`warnOnce`). */
  readonly told: Uint8Array;
  /** Shared: what is known of files that are made when they are opened (`ToldSizes`). */
  readonly toldSizes: SharedArrayBuffer;
}

type GivenFacts = Pick<
  MountFacts,
  'info' | 'imageName' | 'status' | 'snapshot' | 'rootIsFile' | 'stem'
>;

/**
 * Gathers what the image's file tells. With `overlaid`, the first layer is an overlay of the mount's
 * own, and owner and modes are those of the image below it.
 */
export function gatherFacts(
  description: ImageDescription,
  ownership: Ownership,
  rest: GivenFacts,
  overlaid = false,
  told = allocateTold(),
): MountFacts {
  const { mode, uid, gid } = fstatSync(description.layers[overlaid ? 1 : 0]!.file.fd);
  const { umask } = ownership;
  const all = umask === undefined ? mode & 0o666 : 0o666 & ~umask;
  const read = all & 0o444;
  // An overlay takes writes of whoever owns the image, protected as that may be.
  const write = overlaid ? all | ((read & 0o400) >> 1) : all;
  return {
    uid: ownership.uid ?? uid,
    gid: ownership.gid ?? gid,
    fileMode: read,
    directoryMode: read | (read >> 2),
    diskMode: description.writable ? write : read,
    ...liveFacts(description),
    told,
    toldSizes: allocateToldSizes(),
    ...rest,
  };
}

/** What changes about an image's file while it is written to. */
export type LiveFacts = Pick<MountFacts, 'atime' | 'mtime' | 'ctime' | 'btime' | 'imageBlocks'>;

export function liveFacts(description: ImageDescription): LiveFacts {
  // Times to the nanosecond: milliseconds in a double are too coarse.
  const stat = fstatSync(description.layers[0].file.fd, { bigint: true });
  return { ...timesOf(stat), imageBlocks: blocksOfImage(description) };
}

function blocksOfImage({ layers: [top] }: ImageDescription): number | null {
  const stats = filesOf(top).map(({ fd }) => fstatSync(fd));
  if (stats.some((stat) => stat.isBlockDevice())) return null;
  return stats.reduce((sum, { blocks }) => sum + blocks, 0);
}

export function timesOf(stat: BigIntStats) {
  return {
    atime: timestamp(stat.atimeNs),
    mtime: timestamp(stat.mtimeNs),
    ctime: timestamp(stat.ctimeNs),
    btime: timestamp(stat.birthtimeNs),
  };
}

/** Nothing is older than the epoch: the protocol's seconds have no sign. */
function timestamp(nanoseconds: bigint): Timestamp {
  const since = nanoseconds < 0n ? 0n : nanoseconds;
  return { sec: Number(since / NS_PER_SEC), nsec: Number(since % NS_PER_SEC) };
}
