/** Mounting an image: from its path to workers that serve it, and to the end of the mount. */
import { availableParallelism } from 'node:os';
import { basename, extname } from 'node:path';
import { closeImage, type OpenedImage } from '../image/open.js';
import { gatherFacts, type Ownership } from '../mount/facts.js';
import { allocateSliceCache } from '../shared/slice-cache.js';
import { allocateWorkerStatus } from '../shared/worker-status.js';
import { type LogDescription, log } from '../sys/log.js';
import { type MountOptions, mountDevice, unmountDevice } from './device.js';
import { handshake, MAX_READ } from './init.js';
import { findMount, setReadAhead } from './mountinfo.js';
import { WorkerPool } from './pool.js';

export const DEFAULT_CACHE_SIZE = 32 << 20;

/** Read-ahead of the mount, KiB: two of the largest requests. */
const READ_AHEAD_KIB = 2048;

/** One more than the cores: one worker may wait for the disk while the others work. */
export function defaultWorkers(): number {
  return Math.min(availableParallelism() + 1, 16);
}

export interface MountInput {
  readonly image: OpenedImage;
  /** Absolute. */
  readonly target: string;
  readonly rootIsFile: boolean;
  /** Index of the snapshot to mount as the disk. */
  readonly snapshot: number | null;
  /** Text of the tree's `info.json`. */
  readonly info: string;
  /** What `findmnt` shows as the source. */
  readonly source: string;
  readonly ownership: Ownership;
  readonly device: Omit<MountOptions, 'maxRead'>;
  /** Only root and the mounting user may, though others can reach the mount. */
  readonly onlyUser?: number | undefined;
  readonly cacheSize: number;
  readonly workers: number;
  readonly log: LogDescription;
  readonly trace: boolean;
  /** The module that workers run; tests have others. */
  readonly workerUrl?: URL;
}

export interface LiveMount {
  /** Settles when the mount has ended, by whomever. */
  readonly closed: Promise<void>;
  /** Takes the mount out of the tree. Files that are open in it stay usable where `lazy`. */
  unmount(lazy: boolean): void;
}

/** Mounts and serves. When it settles, the mount answers. */
export async function mountImage(input: MountInput): Promise<LiveMount> {
  const { image, target, rootIsFile, source } = input;
  const { description } = image;
  const path = description.layers[0].file.path;
  const facts = gatherFacts(description, input.ownership, {
    info: input.info,
    pid: process.pid,
    snapshot: input.snapshot,
    rootIsFile,
    stem: basename(path, extname(path)),
  });
  const options = { ...input.device, maxRead: MAX_READ };
  const fd = mountDevice({ source, target, rootIsFile, options });
  try {
    handshake(fd);
    const pool = new WorkerPool({
      workers: input.workers,
      log,
      input: {
        fd,
        image: description,
        cache: allocateSliceCache(input.cacheSize),
        status: allocateWorkerStatus(input.workers),
        facts,
        log: input.log,
        trace: input.trace,
        onlyUser: input.onlyUser,
      },
      ...(input.workerUrl === undefined ? {} : { workerUrl: input.workerUrl }),
    });
    await pool.start();
    widenReadAhead(target);
    const closed = pool.closed.then(() => closeImage(description));
    return { closed, unmount: (lazy) => unmountDevice(target, { lazy }) };
  } catch (error) {
    unmountDevice(target, { lazy: true });
    throw error;
  }
}

/** Buffered reads of a cold image go half as fast with the kernel's 128 KiB. Only root may. */
function widenReadAhead(target: string): void {
  const mount = findMount(target);
  if (mount !== undefined) setReadAhead(mount.major, mount.minor, READ_AHEAD_KIB);
}
