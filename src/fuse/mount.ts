/** Mounting an image: from its path to workers that serve it, and to the end of the mount. */
import { closeSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, extname } from 'node:path';
import { describeError, ImageError } from '../errors.js';
import { prepareToAttach } from '../image/attach.js';
import type { WriteOptions } from '../image/write-options.js';
import { closeImage, type OpenedImage } from '../image/open.js';
import { gatherFacts, type MountFacts, type Ownership } from '../mount/facts.js';
import { flushedImage, recoverServed, serveImage } from '../mount/served-image.js';
import { MountState } from '../shared/mount-state.js';
import { allocateWorkerStatus } from '../shared/worker-status.js';
import { type LogDescription, log } from '../sys/log.js';
import { type MountOptions, mountDevice } from './device.js';
import { Flusher, type FlusherOptions } from './flusher.js';
import { handshake, MAX_READ } from './init.js';
import { OwnMount } from './own-mount.js';
import { WorkerPool } from './pool.js';
import type { WorkerInput } from './worker.js';

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
  readonly cacheSize: number;
  readonly workers: number;
  readonly log: LogDescription;
  readonly trace: boolean;
  /** Told of the mount as soon as there is one, before it answers. */
  readonly onMounted?: (mount: ServedMount) => void;
  /** The module that workers run; tests have others. */
  readonly workerUrl?: URL;
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

/** Mounts and serves. When it settles, the mount answers. */
export async function mountImage(input: MountInput): Promise<LiveMount> {
  const { workers, image, cacheSize, write } = input;
  const { description } = image;
  const owners = workers + 1;
  const served = serveImage(description, factsOf(input), { cacheSize, owners, write });
  // Before there is a mount: nothing of it may fail behind.
  if (description.writable) await prepareToAttach(description);
  const flushed = flushedImage(served, owners, log);
  const state = new MountState(served.state, owners);
  return serveMount(input, {
    writable: flushed !== null,
    input: { image: served, state: served.state },
    images: () => (flushed === null ? [] : [flushed]),
    state,
    stop: () => state.stop(),
    recover: (owner) => recoverServed(served, owner),
    release: () => closeImage(description),
  });
}

/** What a mount serves, as far as mounting and its end ask. */
interface Served extends Pick<FlusherOptions, 'images' | 'stop' | 'state'> {
  readonly writable: boolean;
  readonly input: Pick<WorkerInput, 'image' | 'state'>;
  /** Frees what a worker held that has died. */
  readonly recover: (owner: number) => void;
  /** Lets go of all images: no thread uses them any more. */
  readonly release: () => void;
}

async function serveMount(input: MountInput, served: Served): Promise<LiveMount> {
  const { target, rootIsFile, source, workers, trace } = input;
  const options = { ...input.device, maxRead: MAX_READ };
  const fd = mountDevice({ source, target, rootIsFile, options });
  const mount = new OwnMount(target);
  const pool = new WorkerPool({
    workers,
    log,
    input: {
      ...served.input,
      fd,
      status: allocateWorkerStatus(workers),
      log: input.log,
      trace,
      onlyUser: input.onlyUser,
    },
    recover: served.recover,
    ...(input.workerUrl === undefined ? {} : { workerUrl: input.workerUrl }),
  });
  const flusher = served.writable ? new Flusher({ ...served, busy: () => pool.busy }) : null;
  const finish = (): boolean => flusher === null || flusher.finish();
  input.onMounted?.({ target, unmount: (lazy) => mount.unmount(lazy), finish });
  let started = false;
  try {
    handshake(fd, trace ? log : undefined);
    started = true;
    await pool.start();
  } catch (error) {
    abandon(mount);
    finish();
    // Workers that run need the descriptor, to see the end of the mount.
    if (!started) closeSync(fd);
    else pool.closed.then(() => closeSync(fd)).catch(() => {});
    throw error;
  }
  mount.readAhead(READ_AHEAD_KIB);
  const closed = pool.closed.then(
    () => {
      const clean = finish();
      closeSync(fd);
      served.release();
      if (!clean) throw new ImageError('corrupt', 'EIO', 'what was written may be lost');
    },
    (error: unknown) => {
      abandon(mount);
      finish();
      throw error;
    },
  );
  // Who waits sees it; nobody has to.
  closed.catch(() => {});
  return { closed, unmount: (lazy) => mount.unmount(lazy) };
}

function factsOf({ image, ownership, source, ...input }: MountInput): MountFacts {
  const rest = {
    info: input.info,
    imageName: input.imageName,
    pid: process.pid,
    snapshot: input.snapshot,
    rootIsFile: input.rootIsFile,
    stem: basename(source, extname(source)),
  };
  return gatherFacts(image.description, ownership, rest, input.overlaid);
}

/** Takes a mount down that nobody serves. Never throws: the reason for it is what counts. */
function abandon(mount: OwnMount): void {
  try {
    mount.unmount(true);
  } catch (error) {
    log.warning(`'${mount.target}' stays mounted: ${describeError(error)}`);
  }
}
