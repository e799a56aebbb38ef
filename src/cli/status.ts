/**
 * What mounts tell of themselves, as `qcow2fs status` sees it: each is asked by an attribute of its root, or by
 * a file where that holds more than an attribute can.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describeError, ERRNO, errnoOf, ImageError, SysError } from '../errors.js';
import { MOUNT_TYPE } from '../fuse/device.js';
import { findMount, listMounts, type Mount, serversOf } from '../fuse/mountinfo.js';
import type { MountStatus } from '../mount/status.js';
import { STATUS } from '../mount/xattrs.js';
import { getxattrAside } from '../sys/mount.js';

/** As much as the kernel lets an attribute have. */
const LARGEST_ATTRIBUTE = 65536;
const STATUS_FILE = join('.qcow2fs', 'status.json');

/** How long a mount may take to answer. */
const PATIENCE_MS = 3000;

/** A mount, and what it says; or why it says nothing. */
export interface Told {
  readonly mount: Mount;
  readonly status: MountStatus | null;
  readonly problem: string | null;
  /** Processes that serve a mount which says nothing, where the kernel tells. */
  readonly servers: readonly number[];
}

/** All mounts of this program, by their targets; parts of them that are bound elsewhere are not told again. */
export function ownMounts(): Mount[] {
  return listMounts()
    .filter(({ type, root }) => type === MOUNT_TYPE && root === '/')
    .sort((a, b) => (a.target < b.target ? -1 : 1));
}

/** The mount on that path. Throws where there is none, or another one. */
export function ownMount(target: string): Mount {
  const mount = findMount(target);
  if (mount === undefined) {
    throw new ImageError('missing', 'ENOENT', `nothing is mounted on '${target}'`);
  }
  if (mount.type === MOUNT_TYPE) return mount;
  const found = `the mount on '${target}' is of type ${mount.type}`;
  throw new ImageError('invalid', 'EINVAL', found, { limit: `not ${MOUNT_TYPE}` });
}

export async function askMount(mount: Mount): Promise<Told> {
  try {
    if (findMount(mount.target)?.mountId !== mount.mountId) {
      throw new ImageError('missing', 'ENOENT', 'another mount lies over it');
    }
    const text = await within(statusText(mount.target));
    const status = JSON.parse(text) as MountStatus;
    return { mount, status, problem: null, servers: [] };
  } catch (error) {
    return { mount, status: null, problem: reason(error), servers: serversOf(mount.minor) };
  }
}

async function statusText(target: string): Promise<string> {
  try {
    const text = await getxattrAside(target, STATUS, LARGEST_ATTRIBUTE);
    if (text !== undefined) return text;
    throw new ImageError('unsupported', 'ENOTSUP', 'its process does not tell: an older version?');
  } catch (error) {
    const isLarge = [ERRNO.ERANGE, ERRNO.E2BIG].includes(errnoOf(error));
    if (!isLarge) throw error;
    return readFile(join(target, STATUS_FILE), 'utf8');
  }
}

function within<T>(answer: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout;
  const end = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new SysError('getxattr', ERRNO.ETIMEDOUT, '')), PATIENCE_MS);
  });
  // Who comes late is not heard.
  answer.catch(() => {});
  return Promise.race([answer, end]).finally(() => clearTimeout(timer));
}

function reason(error: unknown): string {
  switch (errnoOf(error)) {
    case ERRNO.ENOTCONN:
      return 'its process has ended: unmount it';
    case ERRNO.EACCES:
      return 'only the user who mounted it may look into it (see allow_root, allow_other)';
    case ERRNO.ETIMEDOUT:
      return `it does not answer within ${PATIENCE_MS / 1000} seconds`;
    default:
      return error instanceof ImageError ? error.message : describeError(error);
  }
}
