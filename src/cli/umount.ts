/**
 * `qcow2fs umount`: unmounts, and waits for the daemon behind the mount. umount(2) itself does not:
 * it returns while the daemon still flushes the images and holds their locks.
 */
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { ERRNO, ImageError, SysError, errnoOf } from '../errors.js';
import { MOUNT_TYPE, unmountDevice } from '../fuse/device.js';
import { type Mount, findMount, listMounts, serversOf } from '../fuse/mountinfo.js';
import { DAEMON_PID } from '../mount/xattrs.js';
import { log } from '../sys/log.js';
import { getxattr } from '../sys/mount.js';
import { processIds, processName, processStart, waitForExit } from '../sys/process.js';

/** How long to wait in silence: a large image can take long to flush. */
const SILENT_MS = 5000;

/** A daemon, known for ever by its id and its start. */
interface Daemon {
  readonly pid: number;
  readonly start: number;
}

export interface UmountOptions {
  /** Unmount even if it is in use; there is nothing to wait for then. */
  readonly lazy?: boolean;
}

/**
 * Unmounts the qcow2fs mount on `target` and returns when its daemon has exited: the images are
 * flushed and released. Throws an ImageError where there is no such mount, and a SysError EBUSY
 * that names who uses it.
 */
export async function umount(target: string, { lazy = false }: UmountOptions = {}): Promise<void> {
  const mount = findMount(target);
  if (mount === undefined) {
    throw new ImageError('invalid', 'EINVAL', `nothing is mounted on '${target}'`);
  }
  if (mount.type !== MOUNT_TYPE) {
    const found = `the mount on '${target}' is of type ${mount.type}`;
    throw new ImageError('invalid', 'EINVAL', found, { limit: `not ${MOUNT_TYPE}` });
  }
  const daemons = lazy ? [] : daemonsOf(mount);
  try {
    unmountDevice(mount.target, { lazy });
  } catch (error) {
    if (errnoOf(error) !== ERRNO.EBUSY) throw error;
    const users = usersOf(mount);
    const by = users.length === 0 ? '' : ` by ${users.join(', ')}`;
    throw new SysError('umount', ERRNO.EBUSY, `'${target}' (in use${by})`);
  }
  if (!lazy) await waitForAll(mount, daemons);
}

/**
 * Who serves the mount; undefined where that cannot be found out, empty where nobody does any more.
 * The kernel is asked first: its word is true in every PID namespace, and the mount need not answer
 * for it. The mount's own word serves older kernels; root does not get it from a user's mount.
 */
function daemonsOf(mount: Mount): Daemon[] | undefined {
  let pids = serversOf(mount.minor);
  if (pids.length === 0) {
    const said = saidByMount(mount.target);
    if (said === undefined) return undefined;
    pids = said;
  }
  return pids.flatMap((pid) => {
    const start = pid === process.pid ? undefined : processStart(pid);
    return start === undefined ? [] : [{ pid, start }];
  });
}

function saidByMount(target: string): number[] | undefined {
  try {
    const pid = Number(getxattr(target, DAEMON_PID));
    return Number.isSafeInteger(pid) && pid > 1 ? [pid] : undefined;
  } catch (error) {
    // EACCES: another user's. ENOTCONN: its daemon has died, and there is nothing to wait for.
    return errnoOf(error) === ERRNO.ENOTCONN ? [] : undefined;
  }
}

async function waitForAll(mount: Mount, daemons: readonly Daemon[] | undefined): Promise<void> {
  const other = listMounts().find(({ major, minor, type }) => {
    return major === mount.major && minor === mount.minor && type === mount.type;
  });
  if (other !== undefined) {
    log.warning(`not waiting: the same file system is still mounted on '${other.target}'`);
    return;
  }
  if (daemons === undefined) {
    log.warning(`'${mount.target}' is unmounted, but its daemon was not found: not waiting for it`);
    return;
  }
  for (const { pid, start } of daemons) {
    if (await waitForExit(pid, start, SILENT_MS)) continue;
    log.warning(`waiting for ${processName(pid)} (process ${pid}) to release the images`);
    await waitForExit(pid, start, Number.POSITIVE_INFINITY);
  }
}

/** What keeps the mount busy, as far as this user can see: processes, loop devices, other mounts. */
function usersOf({ target, mountId }: Mount): string[] {
  const inside = (path: string): boolean => path === target || path.startsWith(`${target}/`);
  const processes = processIds()
    .filter((pid) => pid !== process.pid && linksOf(pid).some(inside))
    .map((pid) => `${processName(pid)} (process ${pid})`);
  const loops = listDirectory('/sys/block')
    .filter((name) => inside(backingFile(name)))
    .map((name) => `/dev/${name}`);
  const mounts = listMounts()
    .filter(({ parentId }) => parentId === mountId)
    .map((mount) => `the mount on '${mount.target}'`);
  return [...processes, ...loops, ...mounts];
}

function linksOf(pid: number): string[] {
  const base = `/proc/${pid}`;
  const names = listDirectory(`${base}/fd`).map((fd) => `fd/${fd}`);
  return ['cwd', 'root', 'exe', ...names].map((name) => readLink(`${base}/${name}`));
}

/** The file behind a loop device; empty for any other device. */
function backingFile(blockDevice: string): string {
  try {
    return readFileSync(`/sys/block/${blockDevice}/loop/backing_file`, 'utf8').trimEnd();
  } catch {
    return '';
  }
}

function listDirectory(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function readLink(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}
