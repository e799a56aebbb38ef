/** Mounting an image: from its path to workers that serve it, and to the end of the mount. */
import { closeSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, extname } from 'node:path';
import { describeError } from '../errors.js';
import { allocateImageMemory } from '../image/memory.js';
import { closeImage, type OpenedImage } from '../image/open.js';
import { gatherFacts, type Ownership } from '../mount/facts.js';
import { allocateWorkerStatus } from '../shared/worker-status.js';
import { type LogDescription, log } from '../sys/log.js';
import { type MountOptions, mountDevice } from './device.js';
import { handshake, MAX_READ } from './init.js';
import { OwnMount } from './own-mount.js';
import { WorkerPool } from './pool.js';

export const DEFAULT_CACHE_SIZE = 32 << 20;

/**
 * Read-ahead of the mount, KiB: two of the largest requests. Buffered reads of a cold image go half
 * as fast with the kernel's 128.
 */
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
  /** Told of the mount as soon as there is one, before it answers. */
  readonly onMounted?: (mount: OwnMount) => void;
  /** The module that workers run; tests have others. */
  readonly workerUrl?: URL;
}

export interface LiveMount {
  /** Settles when the mount has ended, by whomever; rejects where nothing can serve it any more. */
  readonly closed: Promise<void>;
  /**
   * Takes the mount out of the tree. Files that are open in it stay usable where `lazy`. False where
   * it does not lie topmost on its path any more.
   */
  unmount(lazy: boolean): boolean;
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
  const mount = new OwnMount(target);
  input.onMounted?.(mount);
  let pool: WorkerPool | undefined;
  try {
    handshake(fd, input.trace ? log : undefined);
    pool = new WorkerPool({
      workers: input.workers,
      log,
      input: {
        fd,
        image: description,
        memory: allocateImageMemory(description, {
          cacheSize: input.cacheSize,
          owners: input.workers + 1,
        }),
        status: allocateWorkerStatus(input.workers),
        facts,
        log: input.log,
        trace: input.trace,
        onlyUser: input.onlyUser,
      },
      ...(input.workerUrl === undefined ? {} : { workerUrl: input.workerUrl }),
    });
    await pool.start();
  } catch (error) {
    abandon(mount);
    // Workers that run need the descriptor, to see the end of the mount.
    if (pool === undefined) closeSync(fd);
    else pool.closed.then(() => closeSync(fd)).catch(() => {});
    throw error;
  }
  mount.readAhead(READ_AHEAD_KIB);
  const closed = pool.closed.then(
    () => {
      closeSync(fd);
      closeImage(description);
    },
    (error: unknown) => {
      abandon(mount);
      throw error;
    },
  );
  // Who waits sees it; nobody has to.
  closed.catch(() => {});
  return { closed, unmount: (lazy) => mount.unmount(lazy) };
}

/** Takes a mount down that nobody serves. Never throws: the reason for it is what counts. */
function abandon(mount: OwnMount): void {
  try {
    mount.unmount(true);
  } catch (error) {
    log.warning(`'${mount.target}' stays mounted: ${describeError(error)}`);
  }
}
