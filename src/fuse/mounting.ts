/** What the transports share: what is mounted, what becomes of it, and the facts that it shows. */
import { basename, extname } from 'node:path';
import { describeError } from '../errors.js';
import type { OpenedImage } from '../image/open.js';
import type { WriteOptions } from '../image/write-options.js';
import { gatherFacts, type MountFacts, type Ownership } from '../mount/facts.js';
import type { StatusFacts } from '../mount/status.js';
import { type LogDescription, log } from '../sys/log.js';
import type { User } from '../sys/privileges.js';
import type { MountOptions } from './device.js';
import type { OwnMount } from './own-mount.js';

/**
 * Read-ahead of the mount, KiB: two of the largest requests. Buffered reads of a cold image go half
 * as fast with the kernel's 128.
 */
export const READ_AHEAD_KIB = 2048;

export interface MountInput {
  readonly image: OpenedImage;
  /** Absolute. */
  readonly target: string;
  readonly rootIsFile: boolean;
  /** The first layer is an overlay that the mount has put over the image. */
  readonly overlaid?: boolean;
  /** How an image that is open for writing is written to. */
  readonly write: WriteOptions;
  /** Index of the snapshot to mount as the disk. */
  readonly snapshot: number | null;
  /** Text of the tree's `info.json`. */
  readonly info: string;
  /** The image as the user named it. */
  readonly imageName: string;
  /** What `findmnt` shows as the source: the image's path. */
  readonly source: string;
  readonly ownership: Ownership;
  readonly device: Omit<MountOptions, 'maxRead'>;
  /** Only root and the mounting user may, though others can reach the mount. */
  readonly onlyUser?: number | undefined;
  /** Root's daemon becomes this user as soon as it has mounted. */
  readonly user?: User | undefined;
  readonly cacheSize: number;
  readonly log: LogDescription;
  readonly trace: boolean;
  /** Told of the mount as soon as there is one, before it answers. */
  readonly onMounted?: (mount: ServedMount) => void;
}

export interface LiveMount {
  /**
   * Settles when the mount has ended, by whomever, and the image is released; rejects where nothing
   * can serve it any more, or what was written could not be made durable.
   */
  readonly closed: Promise<void>;
  /**
   * Takes the mount out of the tree. Files that are open in it stay usable where `lazy`. False where
   * it does not lie topmost on its path any more.
   */
  unmount(lazy: boolean): boolean;
}

/** A mount as far as it has come. */
export interface ServedMount extends Pick<OwnMount, 'target' | 'unmount'> {
  /**
   * Ends serving and makes durable what was written, before the process ends although the mount may
   * not have. False where that failed; the log tells why.
   */
  finish(): boolean;
}

export function factsOf(
  { image, ownership, source, ...input }: MountInput,
  status: StatusFacts,
): MountFacts {
  const rest = {
    info: input.info,
    imageName: input.imageName,
    status,
    snapshot: input.snapshot,
    rootIsFile: input.rootIsFile,
    stem: basename(source, extname(source)),
  };
  return gatherFacts(image.description, ownership, rest, input.overlaid);
}

/** Takes a mount down that nobody serves. Never throws: the reason for it is what counts. */
export function abandon(mount: OwnMount): void {
  try {
    mount.unmount(true);
  } catch (error) {
    log.warning(`'${mount.target}' stays mounted: ${describeError(error)}`);
  }
}
