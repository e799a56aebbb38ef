/** Mounting an image: from its path to workers that serve it, and to the end of the mount. */
import { closeSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { ImageError } from '../errors.js';
import { AttachedImage, prepareToAttach } from '../image/attach.js';
import { allocateImageMemory, type ImageMemory } from '../image/memory.js';
import { closeImage } from '../image/open.js';
import type { ImageWriter } from '../image/writer.js';
import { allocateOpenFiles } from '../mount/open-files.js';
import { allocateMountState, MountState } from '../shared/mount-state.js';
import { allocateWorkerStatus } from '../shared/worker-status.js';
import { log } from '../sys/log.js';
import { mountDevice } from './device.js';
import { Flusher } from './flusher.js';
import { handshake, MAX_READ } from './init.js';
import { abandon, factsOf, type LiveMount, type MountInput, READ_AHEAD_KIB } from './mounting.js';
import { OwnMount } from './own-mount.js';
import { WorkerPool } from './pool.js';

export const DEFAULT_CACHE_SIZE = 32 << 20;

/** How long the main thread waits for workers that hold the image, before it looks whether they live. */
const FLUSH_PATIENCE_MS = 500;

/** One more than the cores: one worker may wait for the disk while the others work. */
export function defaultWorkers(): number {
  return Math.min(availableParallelism() + 1, 16);
}

export interface KernelMountInput extends MountInput {
  readonly workers: number;
  /** The module that workers run; tests have others. */
  readonly workerUrl?: URL;
}

/** Mounts and serves. When it settles, the mount answers. */
export async function mountImage(input: KernelMountInput): Promise<LiveMount> {
  const { target, rootIsFile, source } = input;
  const { description } = input.image;
  const facts = factsOf(input);
  const memory = allocateImageMemory(description, {
    cacheSize: input.cacheSize,
    owners: input.workers + 1,
    write: input.write,
  });
  const state = allocateMountState();
  const options = { ...input.device, maxRead: MAX_READ };
  // Before there is a mount: nothing of it may fail behind.
  const writer = await attachWriter(input, memory);
  const fd = mountDevice({ source, target, rootIsFile, options });
  const mount = new OwnMount(target);
  const pool = new WorkerPool({
    workers: input.workers,
    log,
    input: {
      fd,
      image: description,
      memory,
      files: allocateOpenFiles(),
      state,
      status: allocateWorkerStatus(input.workers),
      facts,
      log: input.log,
      trace: input.trace,
      onlyUser: input.onlyUser,
    },
    ...(input.workerUrl === undefined ? {} : { workerUrl: input.workerUrl }),
  });
  const flusher =
    writer === null
      ? null
      : new Flusher({
          writer,
          state: new MountState(state, input.workers + 1),
          log,
          busy: () => pool.busy,
        });
  const finish = (): boolean => flusher === null || flusher.finish();
  input.onMounted?.({ target, unmount: (lazy) => mount.unmount(lazy), finish });
  let started = false;
  try {
    handshake(fd, input.trace ? log : undefined);
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
      closeImage(description);
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

/** The main thread's own way to the image, for flushing; null where it is read-only. */
async function attachWriter(
  { image: { description }, workers }: KernelMountInput,
  memory: ImageMemory,
): Promise<ImageWriter | null> {
  if (!description.writable) return null;
  await prepareToAttach(description);
  const options = { patienceMs: FLUSH_PATIENCE_MS };
  return new AttachedImage(description, memory, workers + 1, options).writer;
}
