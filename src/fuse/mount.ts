/** Mounting an image: from its path to workers that serve it, and to the end of the mount. */
import { accessSync, closeSync, constants } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { ImageError } from '../errors.js';
import { prepareToAttach } from '../image/attach.js';
import { closeImage } from '../image/open.js';
import { flushedImage, recoverServed, serveImage } from '../mount/served-image.js';
import { allocateStatus } from '../mount/status.js';
import { MountState } from '../shared/mount-state.js';
import type { QuestionLine } from '../shared/questions.js';
import { allocateWorkerStatus } from '../shared/worker-status.js';
import { log } from '../sys/log.js';
import { becomeUser, type User } from '../sys/privileges.js';
import { mountDevice } from './device.js';
import { Flusher, type FlusherOptions } from './flusher.js';
import { handshake, MAX_READ } from './init.js';
import { abandon, factsOf, type LiveMount, type MountInput, READ_AHEAD_KIB } from './mounting.js';
import { OPCODE_NAMES } from './opcodes.js';
import { OwnMount } from './own-mount.js';
import { WORKER_URL, WorkerPool } from './pool.js';
import { startUnmounter } from './unmounter.js';
import type { WorkerInput } from './worker.js';

export const DEFAULT_CACHE_SIZE = 32 << 20;

/** One more than the cores: one worker may wait for the disk while the others work. */
export function defaultWorkers(): number {
  return Math.min(availableParallelism() + 1, 16);
}

export interface KernelMountInput extends MountInput {
  readonly workers: number;
  /** The module that workers run; tests have others. */
  readonly workerUrl?: URL;
}

/** What the end of a mount and its workers need, whatever it shows. */
export type ServeInput = Omit<
  KernelMountInput,
  'image' | 'overlaid' | 'write' | 'snapshot' | 'info' | 'imageName' | 'ownership' | 'cacheSize'
>;

/** Mounts and serves. When it settles, the mount answers. */
export async function mountImage(input: KernelMountInput): Promise<LiveMount> {
  const { workers, image, cacheSize, write } = input;
  const { description } = image;
  const owners = workers + 1;
  const facts = factsOf(input, allocateStatus(workers, OPCODE_NAMES));
  const served = serveImage(description, facts, { cacheSize, owners, write });
  // Before there is a mount: nothing of it may fail behind.
  if (description.writable) await prepareToAttach(description);
  const flushed = flushedImage(served, owners, log);
  const state = new MountState(served.state, owners);
  return serveMount(input, {
    writable: flushed !== null,
    status: allocateWorkerStatus(workers),
    input: { serves: { image: served }, state: served.state, requests: facts.status.requests },
    images: () => (flushed === null ? [] : [flushed]),
    state,
    stop: () => state.stop(),
    recover: (owner) => recoverServed(served, owner),
    release: () => closeImage(description),
  });
}

/** What a mount serves, as far as mounting and its end ask. */
export interface Served extends Pick<FlusherOptions, 'images' | 'stop' | 'state'> {
  readonly writable: boolean;
  readonly input: Pick<WorkerInput, 'serves' | 'state' | 'requests'>;
  /** Of `WorkerStatus`. */
  readonly status: SharedArrayBuffer;
  /** What workers ask is answered on. */
  readonly connect?: (() => QuestionLine) | undefined;
  /** Frees what a worker held that has died. */
  readonly recover: (owner: number) => void;
  /** Lets go of all images: no thread uses them any more. */
  readonly release: () => void;
}

/** Mounts, and serves what is `served` until the mount ends. */
export async function serveMount(input: ServeInput, served: Served): Promise<LiveMount> {
  const { target, rootIsFile, source, workers, trace } = input;
  const options = { ...input.device, owner: input.user, maxRead: MAX_READ };
  const fd = mountDevice({ source, target, rootIsFile, options });
  const mount = new OwnMount(target);
  const pool = new WorkerPool({
    workers,
    log,
    input: {
      ...served.input,
      fd,
      status: served.status,
      log: input.log,
      trace,
      onlyUser: input.onlyUser,
    },
    recover: served.recover,
    connect: served.connect,
    ...(input.workerUrl === undefined ? {} : { workerUrl: input.workerUrl }),
  });
  const flusher = served.writable ? new Flusher({ ...served, busy: () => pool.busy }) : null;
  const finish = (): boolean => flusher === null || flusher.finish();
  input.onMounted?.({ target, unmount: (lazy) => mount.unmount(lazy), finish });
  let started = false;
  try {
    handshake(fd, trace ? log : undefined);
    mount.readAhead(READ_AHEAD_KIB);
    if (input.user !== undefined) dropPrivileges(mount, input.user);
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

/** From here on nothing is opened by name but the program's own files, which workers read. */
function dropPrivileges(mount: OwnMount, user: User): void {
  mount.handOver(startUnmounter(mount));
  becomeUser(user);
  const program = fileURLToPath(WORKER_URL);
  try {
    accessSync(program, constants.R_OK);
  } catch (error) {
    const message = `user '${user.name}' cannot read '${program}'`;
    const limit = 'the program must lie where that user can read it';
    throw new ImageError('policy', 'EACCES', message, { limit }, error);
  }
}
