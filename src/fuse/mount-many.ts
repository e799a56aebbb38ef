/** Mounting many images: what workers serve of them, and what the main thread does meanwhile. */
import { type BigIntStats, closeSync, openSync, statSync } from 'node:fs';
import { basename, dirname, extname } from 'node:path';
import { isExpected, errorStack } from '../errors.js';
import type { ImageDescription } from '../image/description.js';
import type { OpenedImage } from '../image/open.js';
import { loadZstd } from '../image/qcow2/compression.js';
import type { WriteOptions } from '../image/write-options.js';
import type { ImageFile, Source } from '../mount/catalogue.js';
import { Collection } from '../mount/collection.js';
import { answering } from '../mount/collection-questions.js';
import { gatherFacts, type MountFacts, type Ownership } from '../mount/facts.js';
import { infoJson } from '../mount/info-json.js';
import { recoverServed } from '../mount/served-image.js';
import { allocateStatus } from '../mount/status.js';
import { allocateTold } from '../mount/warn-once.js';
import { allocateMembers } from '../shared/members.js';
import { allocateMountState, MountState } from '../shared/mount-state.js';
import { Answerer } from '../shared/questions.js';
import { allocateWorkerStatus, WorkerStatus } from '../shared/worker-status.js';
import { log } from '../sys/log.js';
import { MOUNT_TYPE } from './device.js';
import { type ServeInput, serveMount } from './mount.js';
import type { LiveMount } from './mounting.js';
import { deviceNumber, listMounts } from './mountinfo.js';
import { OPCODE_NAMES } from './opcodes.js';

export interface ManyMountInput extends ServeInput {
  /** One folder without a name, or any number of files and folders with names of their own. */
  readonly sources: readonly Source[];
  readonly writable: boolean;
  readonly openFile: (image: ImageFile) => OpenedImage;
  readonly write: WriteOptions;
  readonly format: string | undefined;
  readonly ownership: Ownership;
  /** Bytes, of all images together. */
  readonly cacheSize: number;
  readonly maxOpen: number;
  /** Seconds. */
  readonly idle: number;
}

/** Mounts and serves. When it settles, the mount answers. */
export async function mountMany(input: ManyMountInput): Promise<LiveMount> {
  const { ownership, sources, workers, writable } = input;
  const owner = workers + 1;
  const stateMemory = allocateMountState();
  const state = new MountState(stateMemory, owner);
  const statuses = allocateWorkerStatus(workers);
  const members = allocateMembers();
  const status = allocateStatus(workers, OPCODE_NAMES);
  const told = allocateTold();
  const factsOf = (image: ImageFile, description: ImageDescription): MountFacts => {
    const imageName = image.path;
    const info = infoJson(description.layers[0], imageName);
    const stem = basename(image.path, extname(image.path));
    const rest = { info, imageName, status, snapshot: null, rootIsFile: false, stem };
    return { ...gatherFacts(description, ownership, rest, false, told), oneOfMany: true };
  };
  if (writable) await loadZstd();
  const rootFd = openSync(rootFolder(sources), 'r');
  const collection = new Collection({
    ...{ ...input, members, statuses, factsOf, log },
    isMount: mountsBeside(sources),
  });
  const answerer = new Answerer(
    answering(collection, (error) => {
      if (!isExpected(error)) log.error(`internal error: ${errorStack(error)}`);
    }),
  );
  const facts = { rootFd, ownership, status, sources: pathsOf(sources) };
  try {
    return await serveMount(input, {
      writable,
      state,
      status: statuses,
      input: {
        serves: { facts, members, pid: process.pid },
        state: stateMemory,
        requests: status.requests,
      },
      connect: () => answerer.connect(),
      images: () => collection.opened.flushed(),
      stop: () => {
        state.stop();
        collection.stop();
        // Who waits for the main thread would be waited for by it.
        answerer.stop();
      },
      recover: (dead) => {
        for (const served of collection.opened.served()) recoverServed(served, dead);
        recoverCount(collection, new WorkerStatus(statuses, dead - 1));
      },
      release: () => {
        collection.stop();
        collection.opened.release();
        closeSync(rootFd);
      },
    });
  } catch (error) {
    collection.stop();
    throw error;
  }
}

/** Tells the roots of mounts of this program: never on the file systems that the sources lie on. */
function mountsBeside(sources: readonly Source[]): (stat: BigIntStats) => boolean {
  const plain = new Set(sources.map(({ path }) => statSync(path, { bigint: true }).dev));
  return ({ dev }) =>
    !plain.has(dev) &&
    listMounts().some((mount) => mount.type === MOUNT_TYPE && deviceNumber(mount) === dev);
}

/** What the root looks like: the source, or what holds the first of them. */
function rootFolder(sources: readonly Source[]): string {
  const [{ name, path }] = sources as [Source];
  return name === '' ? path : dirname(path);
}

function pathsOf(sources: readonly Source[]): Record<string, string> {
  return Object.fromEntries(sources.map(({ name, path }) => [name, path]));
}

/** Whoever opened a file that no answer tells of gets an error: it is not open. */
function recoverCount({ opened: { members } }: Collection, status: WorkerStatus): void {
  const member = status.counted;
  if (status.pending() === undefined || member === 0) return;
  members.addFiles(member, -1);
  status.counted = 0;
}
