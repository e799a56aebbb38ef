/**
 * Mounting through the package fuse-native: libfuse 2 speaks with the kernel, and its threads hand each request on to
 * the main thread, which serves them one by one. Slower than workers, and less can be done (`LIMITS`).
 */
import { delimiter } from 'node:path';
import { describeError, ImageError } from '../../errors.js';
import { prepareToAttach } from '../../image/attach.js';
import { closeImage } from '../../image/open.js';
import { flushedImage, operationsOf, serveImage } from '../../mount/served-image.js';
import { allocateStatus } from '../../mount/status.js';
import { MountState } from '../../shared/mount-state.js';
import { RequestCounters } from '../../shared/request-counters.js';
import { log } from '../../sys/log.js';
import { HELPER_PATH, MOUNT_TYPE, refusedBy } from '../device.js';
import { Flusher } from '../flusher.js';
import { findMount } from '../mountinfo.js';
import { abandon, factsOf, type LiveMount, type MountInput, READ_AHEAD_KIB } from '../mounting.js';
import { OPCODE_NAMES } from '../opcodes.js';
import { OwnMount } from '../own-mount.js';
import { type Handlers, loadFuseNative, type NativeFuse, type NativeMount } from './binding.js';
import { Connection } from './connection.js';
import { makeHandlers } from './handlers.js';
import { nativeOptions } from './options.js';
import { PathFiles } from './path-files.js';
import { hearing } from './words.js';

/** What who mounts should know. */
export const LIMITS =
  'transport fuse-native: holes cannot be punched or found, requests have 128 KiB, one thread serves them';

/** Numbers of owners of locks: the only thread is two, by turns. */
const SERVER = 1;
const FLUSHER = 2;

/** Mounts and serves, as `mountImage` does. Nothing that this thread does may wait for the mount's files. */
export async function mountNative(input: MountInput): Promise<LiveMount> {
  const { target } = input;
  const { description } = input.image;
  const options = nativeOptions(input);
  const fuse = loadFuseNative();
  await prepareToAttach(description);
  const { handlers, finish } = serving(input);
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
    await establish(makeMount(fuse, target, handlers, options), connection, target);
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

/** What serves the requests, and ends that. */
function serving(input: MountInput): { handlers: Handlers; finish: () => boolean } {
  const { cacheSize, write, trace } = input;
  const facts = factsOf(input, allocateStatus(1, OPCODE_NAMES));
  const image = serveImage(input.image.description, facts, { cacheSize, owners: 2, write });
  const state = new MountState(image.state, FLUSHER);
  const flushed = flushedImage(image, FLUSHER, log);
  const images = flushed === null ? [] : [flushed];
  const stop = (): void => state.stop();
  const flusher = new Flusher({ images: () => images, stop, state, busy: () => false });
  // Files are closed by requests that this thread serves, too: it does not wait for them in others.
  const files = new PathFiles(operationsOf(image, SERVER, 0));
  const counters = new RequestCounters(facts.status.requests, 0);
  const { handlers, end } = makeHandlers({ files, state, counters, log, trace });
  const finish = (): boolean => {
    const clean = flusher.finish();
    end();
    return clean;
  };
  return { handlers, finish };
}

function makeMount(
  Fuse: NativeFuse,
  target: string,
  handlers: Handlers,
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
  if (/failed to exec fusermount/.test(words)) {
    const message =
      'fusermount is not installed: an ordinary user needs it (package fuse3, or fuse)';
    throw new ImageError('missing', 'ENOENT', message, {}, error);
  }
  if (error !== undefined) throw refusedBy(target, words || describeError(error));
  if (words !== '') log.warning(words);
  if (!connection.find()) {
    throw new ImageError('missing', 'ENODEV', "libfuse's /dev/fuse is not to be found");
  }
}
