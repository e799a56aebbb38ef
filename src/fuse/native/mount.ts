/**
 * Mounting through the package fuse-native: libfuse 2 speaks with the kernel, and its threads hand each request on to
 * the main thread, which serves them one by one. Slower than workers, and less can be done (`LIMITS`).
 */
import { delimiter } from 'node:path';
import { describeError, ImageError } from '../../errors.js';
import { AttachedImage, prepareToAttach } from '../../image/attach.js';
import { allocateImageMemory } from '../../image/memory.js';
import { closeImage } from '../../image/open.js';
import { Changes } from '../../mount/changes.js';
import { allocateOpenFiles, OpenFiles } from '../../mount/open-files.js';
import { Operations } from '../../mount/operations.js';
import { Tree } from '../../mount/tree.js';
import { allocateMountState, MountState } from '../../shared/mount-state.js';
import { log } from '../../sys/log.js';
import { HELPER_PATH, MOUNT_TYPE } from '../device.js';
import { Flusher } from '../flusher.js';
import { findMount } from '../mountinfo.js';
import { abandon, factsOf, type LiveMount, type MountInput, READ_AHEAD_KIB } from '../mounting.js';
import { OwnMount } from '../own-mount.js';
import { loadFuseNative, type NativeFuse, type NativeMount } from './binding.js';
import { Connection } from './connection.js';
import { makeHandlers, type ServedHandlers } from './handlers.js';
import { nativeOptions } from './options.js';
import { PathFiles } from './path-files.js';
import { hearing } from './words.js';

/** What who mounts should know. */
export const LIMITS =
  'transport fuse-native: holes cannot be punched or found, requests have 128 KiB, one thread serves them';

/** The only thread's number as an owner of locks. */
const OWNER = 1;

/** Mounts and serves, as `mountImage` does. Nothing that this thread does may wait for the mount's files. */
export async function mountNative(input: MountInput): Promise<LiveMount> {
  const { target } = input;
  const { description } = input.image;
  const options = nativeOptions(input);
  const fuse = loadFuseNative();
  await prepareToAttach(description);
  const state = new MountState(allocateMountState(), OWNER);
  const { operations, flusher } = attach(input, state);
  const served = makeHandlers({
    files: new PathFiles(operations),
    state,
    log,
    trace: input.trace,
  });
  const finish = (): boolean => {
    const clean = flusher === null || flusher.finish();
    served.end();
    return clean;
  };
  const before = findMount(target)?.mountId;
  let own: OwnMount | undefined;
  /** Undefined as long as there is none. */
  const mount = (): OwnMount | undefined => {
    const found = own === undefined ? findMount(target) : undefined;
    if (found?.type === MOUNT_TYPE && found.mountId !== before) own = new OwnMount(target);
    return own;
  };
  const unmount = (lazy: boolean): boolean => mount()?.unmount(lazy) ?? false;
  const connection = new Connection();
  input.onMounted?.({ target, unmount, finish });
  try {
    await establish(makeMount(fuse, target, served, options), connection, target);
  } catch (error) {
    const made = mount();
    if (made !== undefined) abandon(made);
    connection.close();
    finish();
    throw error;
  }
  mount()?.readAhead(READ_AHEAD_KIB);
  const closed = connection.ended.then(() => {
    const clean = finish();
    connection.close();
    closeImage(description);
    if (!clean) throw new ImageError('corrupt', 'EIO', 'what was written may be lost');
  });
  // Who waits sees it; nobody has to.
  closed.catch(() => {});
  return { closed, unmount };
}

function attach(
  input: MountInput,
  state: MountState,
): { operations: Operations; flusher: Flusher | null } {
  const { description } = input.image;
  const facts = factsOf(input);
  const memory = allocateImageMemory(description, {
    cacheSize: input.cacheSize,
    owners: 1,
    write: input.write,
  });
  const image = new AttachedImage(description, memory, OWNER);
  const { writer, disk } = image;
  if (writer === null) return { operations: new Operations(new Tree(image, facts)), flusher: null };
  // Files are closed by requests that this thread serves, too: it does not wait for them here.
  const files = new OpenFiles(allocateOpenFiles(), disk, OWNER, 0);
  const tree = new Tree(image, facts, files.windows);
  const changes = new Changes({ tree, disk, writer, files, state });
  const flusher = new Flusher({ writer, state, log, busy: () => false });
  return { operations: new Operations(tree, changes), flusher };
}

function makeMount(
  Fuse: NativeFuse,
  target: string,
  { handlers }: ServedHandlers,
  options: string,
): NativeMount {
  // Without a time-out: a request that takes long is answered late, and not twice.
  const mount = new Fuse(target, handlers, { timeout: false });
  const { getxattr, listxattr } = handlers as Record<string, (...args: unknown[]) => void>;
  return Object.assign(mount, {
    _fuseOptions: () => options,
    _op_getxattr: ((signal, path, name, buffer) => {
      getxattr!(path, name, buffer, (result: number) => signal(result, buffer.buffer));
    }) satisfies NativeMount['_op_getxattr'],
    _op_listxattr: ((signal, path, buffer) => {
      listxattr!(path, buffer, (result: number) => signal(result, buffer.buffer));
    }) satisfies NativeMount['_op_listxattr'],
  });
}

/** Settles when the kernel's INIT has come. */
async function establish(
  mount: NativeMount,
  connection: Connection,
  target: string,
): Promise<void> {
  // For the fusermount that libfuse runs: mount(8) gives its helpers a poor PATH.
  process.env.PATH = [process.env.PATH, HELPER_PATH].filter(Boolean).join(delimiter);
  const { error, words } = await hearing(async () => {
    const initialised = new Promise<void>((resolve, reject) => {
      mount.mount((problem) => (problem === null ? resolve() : reject(problem)));
    });
    const over = connection.ended.then(() => {
      throw new ImageError('invalid', 'ENODEV', 'unmounted before it was mounted');
    });
    await Promise.race([initialised, over]);
  });
  if (error instanceof ImageError) throw error;
  if (error !== undefined) {
    const reason = [describeError(error), words].filter(Boolean).join(': ');
    const message = `cannot mount on '${target}' through fuse-native: ${reason}`;
    throw new ImageError('policy', 'EPERM', message, {}, error);
  }
  if (words !== '') log.warning(words);
  if (!connection.find()) {
    throw new ImageError('missing', 'ENODEV', "libfuse's /dev/fuse is not to be found");
  }
}
