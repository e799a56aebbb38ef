/**
 * Snapshots of an image that a mount serves: the mount itself is asked, through attributes of its
 * root. Nobody else may change the image meanwhile.
 */
import {
  closeSync,
  copyFileSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { ERRNO, errnoOf, ImageError, isExpected, errorCode } from '../errors.js';
import { MOUNT_TYPE } from '../fuse/device.js';
import { findMount, listMounts, type Mount } from '../fuse/mountinfo.js';
import { collectInfo } from '../image/info.js';
import { closeImage, openImage } from '../image/open.js';
import {
  CONTROL_FAILURE,
  CONTROL_PREFIX,
  type Control,
  DAEMON_PID,
  IMAGE_PATH,
  SOURCES,
} from '../mount/xattrs.js';
import { isInside } from '../image/file-names.js';
import { isOnFuse } from '../sys/file.js';
import { getxattr, setxattr } from '../sys/mount.js';
import type { ListedSnapshot } from './info.js';

const LONGEST_FAILURE = 4096;
const LONGEST_PATH = 4096;
/** The longest value that the kernel hands on. */
const LONGEST_SOURCES = 65_536;

/** The root of an image's tree in a mount of ours that a path is; undefined where it is none. */
export function mountAt(path: string): string | undefined {
  const mount = unlessMissing(() => findMount(path));
  if (mount?.type === MOUNT_TYPE) return mount.target;
  // One of many in a mount: only roots tell of the process behind them.
  const isRoot = unlessMissing(() => isOnFuse(path) && getxattr(path, DAEMON_PID) !== undefined);
  return isRoot === true ? path : undefined;
}

/** Whether a mount has many images, each with a root of its own. */
export function isOfMany(target: string): boolean {
  return unlessMissing(() => getxattr(target, SOURCES, LONGEST_SOURCES)) !== undefined;
}

/** The mount that a path lies in, if it is ours. */
export function mountOf(
  path: string,
): { /** None where there are many. */ image: string | undefined; writable: boolean } | undefined {
  const root = mountAt(path);
  if (root === undefined) return undefined;
  const told = unlessMissing(() => getxattr(root, IMAGE_PATH, LONGEST_PATH));
  const mount = unlessMissing(() => findMount(root));
  // An overlay that is thrown away has no name: the mount has the image's.
  const image = told?.startsWith('/proc/') === true ? mount?.source : told;
  return { image, writable: mount?.options.split(',').includes('rw') === true };
}

/** The root of the image at `path` in a mount through which it is written to; undefined where there is none. */
export function mountThatWrites(path: string): string | undefined {
  const real = unlessMissing(() => realpathSync(path));
  if (real === undefined) return undefined;
  for (const mount of listMounts()) {
    const root = rootIn(mount, real);
    if (root !== undefined) return root;
  }
  return undefined;
}

function rootIn({ type, options, target, mountId }: Mount, real: string): string | undefined {
  if (type !== MOUNT_TYPE || !options.split(',').includes('rw')) return undefined;
  // What another mount hides cannot be asked.
  if (unlessMissing(() => findMount(target))?.mountId !== mountId) return undefined;
  const isRoot = (root: string) => {
    const image = unlessMissing(() => getxattr(root, IMAGE_PATH, LONGEST_PATH));
    return image !== undefined && unlessMissing(() => realpathSync(image)) === real;
  };
  const sources = unlessMissing(() => getxattr(target, SOURCES, LONGEST_SOURCES));
  if (sources === undefined) return isRoot(target) ? target : undefined;
  return placesIn(JSON.parse(sources) as Record<string, string>, real)
    .map((place) => join(target, place))
    .find(isRoot);
}

/** Where a mount of many may show a file: by its place in a folder, or by its own name. */
function placesIn(sources: Readonly<Record<string, string>>, real: string): string[] {
  return Object.entries(sources).flatMap(([name, path]) => {
    if (path === real) return [name];
    return isInside(real, path) ? [join(name, relative(path, real))] : [];
  });
}

/** Another user's mount, a dead one, a path that leads nowhere: nothing that is asked here. */
function unlessMissing<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (isExpected(error)) return undefined;
    throw error;
  }
}

/** Lets the mount do something with the snapshot of that name. Throws in its words. */
export function control(target: string, what: Control, name: string): void {
  try {
    setxattr(target, `${CONTROL_PREFIX}${what}`, name);
  } catch (error) {
    throw explained(target, error);
  }
}

/** Lets it take a snapshot with the file's bytes as its VM state. */
export function createWithVmState(target: string, name: string, file: string): void {
  const fd = openForMount(file);
  try {
    control(target, 'create-with-vm-state', `${fd}:${name}`);
  } finally {
    closeSync(fd);
  }
}

/** A mount does not read from FUSE: it would wait for itself where the file is one of its own. */
function openForMount(file: string): number {
  if (!isOnFuse(file)) return openSync(file, 'r');
  const folder = mkdtempSync(join(tmpdir(), 'qcow2fs-'));
  try {
    const copy = join(folder, 'vmstate');
    copyFileSync(file, copy);
    return openSync(copy, 'r');
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** In the words of the mount, which knows more than an errno says. */
function explained(target: string, error: unknown): unknown {
  const errno = errnoOf(error);
  const code = errorCode(error);
  if (errno === ERRNO.EROFS) {
    return new ImageError('policy', code, `'${target}' is mounted read-only`, { limit: '-o rw' });
  }
  const words = unlessMissing(() => getxattr(target, CONTROL_FAILURE, LONGEST_FAILURE)) ?? '';
  return words === '' ? error : new ImageError('invalid', code, words);
}

/** What QEMU prints in JSON of a snapshot. */
interface PrintedSnapshot {
  readonly id: string;
  readonly name: string;
  readonly 'vm-state-size': number;
  readonly 'date-sec': number;
  readonly 'vm-clock-sec': number;
  readonly 'vm-clock-nsec': number;
  readonly icount?: number;
}

/** The snapshots as they are now. */
export function listMounted(target: string): readonly ListedSnapshot[] {
  if (!statSync(target).isDirectory()) return listBehind(target);
  const info = JSON.parse(readFileSync(join(target, 'disk.info.json'), 'utf8')) as {
    snapshots?: PrintedSnapshot[];
  };
  return (info.snapshots ?? []).map(tableRow);
}

function tableRow(snapshot: PrintedSnapshot): ListedSnapshot {
  const seconds = BigInt(snapshot['vm-clock-sec']);
  return {
    id: snapshot.id,
    name: snapshot.name,
    vmStateSize: snapshot['vm-state-size'],
    dateSec: snapshot['date-sec'],
    vmClock: seconds * 1_000_000_000n + BigInt(snapshot['vm-clock-nsec']),
    icount: snapshot.icount === undefined ? null : BigInt(snapshot.icount),
  };
}

/**
 * Of a disk that is mounted over a file, which shows the disk alone: read from the image that its
 * daemon has open, as the image's own path may be hidden. A snapshot is in the file once it is taken.
 */
function listBehind(target: string): readonly ListedSnapshot[] {
  const image = getxattr(target, IMAGE_PATH, LONGEST_PATH)!;
  const folder = `/proc/${getxattr(target, DAEMON_PID)}/fd`;
  const real = unlessMissing(() => realpathSync(image)) ?? image;
  const fd = readdirSync(folder).find((name) => {
    const link = unlessMissing(() => readlinkSync(join(folder, name)));
    return link === real || link === image;
  });
  if (fd === undefined) {
    throw new ImageError('missing', 'ENOENT', `'${image}' is not found behind '${target}'`);
  }
  const policy = { alone: true, allowEncrypted: true, noDataFiles: true };
  const { description } = openImage(join(folder, fd), policy);
  try {
    return collectInfo(description.layers[0], image).snapshots;
  } finally {
    closeImage(description);
  }
}
