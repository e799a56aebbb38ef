/**
 * What the kernel tells of mounts, from /proc: proc_pid_mountinfo(5). Nothing here touches a mount
 * itself: the server of a mount that hangs or is dead would make us hang or fail too.
 */
import { readdirSync, readFileSync, readlinkSync, realpathSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { processIds } from '../sys/process.js';

/** One line of /proc/self/mountinfo. */
export interface Mount {
  readonly mountId: number;
  readonly parentId: number;
  /** The device number that stat shows for all files in it. */
  readonly major: number;
  readonly minor: number;
  /** The directory of the file system that is mounted: not '/' for a bind mount. */
  readonly root: string;
  readonly target: string;
  readonly type: string;
  readonly source: string;
  /** Options of this mount, and of the file system: comma-separated. */
  readonly options: string;
  readonly superOptions: string;
}

/** What tells a mount from any other. */
export type MountDevice = Pick<Mount, 'major' | 'minor'>;

/** As `stat` tells it of what lies on the mount. */
export function deviceNumber({ major, minor }: MountDevice): bigint {
  const [high, low] = [BigInt(major), BigInt(minor)];
  return (
    ((high & ~0xfffn) << 32n) | ((low & ~0xffn) << 12n) | ((high & 0xfffn) << 8n) | (low & 0xffn)
  );
}

/** As many symbolic links as the kernel follows. */
const MAX_LINKS = 40;

/** All mounts in the text of a mountinfo file. Lines that are not understood are left out. */
export function parseMountinfo(text: string): Mount[] {
  return text
    .split('\n')
    .map(parseLine)
    .filter((mount) => mount !== undefined);
}

/** `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`: fields before '-' vary. */
function parseLine(line: string): Mount | undefined {
  const fields = line.split(' ');
  const separator = fields.indexOf('-', 6);
  if (separator < 0) return undefined;
  const [mountId, parentId, device, root, target, options] = fields;
  const [type, source, superOptions] = fields.slice(separator + 1);
  const [major, minor] = device!.split(':');
  return {
    mountId: Number(mountId),
    parentId: Number(parentId),
    major: Number(major),
    minor: Number(minor),
    root: unescapeOctal(root!),
    target: unescapeOctal(target!),
    type: unescapeOctal(type ?? ''),
    source: unescapeOctal(source ?? ''),
    options: options!,
    superOptions: unescapeOctal(superOptions ?? ''),
  };
}

/** Blanks, line breaks, backslashes and '#' are written as `\040`, byte by byte. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** Every mount this process can see. */
export function listMounts(): Mount[] {
  return parseMountinfo(readFileSync('/proc/self/mountinfo', 'utf8'));
}

/**
 * The topmost mount on that very path, relative or absolute; undefined where nothing is mounted
 * there. A symbolic link is followed. Throws Node's error where the parent cannot be reached.
 */
export function findMount(target: string): Mount | undefined {
  const mounts = listMounts();
  let path = target;
  for (let links = 0; links < MAX_LINKS; links++) {
    path = withRealParent(path);
    const found = topmost(mounts, path);
    if (found !== undefined) return found;
    const link = linkAt(path);
    if (link === undefined) return undefined;
    path = resolve(dirname(path), link);
  }
  return undefined;
}

function withRealParent(path: string): string {
  const absolute = resolve(path);
  return join(realpathSync.native(dirname(absolute)), basename(absolute));
}

/** What was mounted last on `path`: the one that no other mount there lies upon. */
function topmost(mounts: readonly Mount[], path: string): Mount | undefined {
  const here = mounts.filter((mount) => mount.target === path);
  return here.findLast((mount) => !here.some((other) => other.parentId === mount.mountId));
}

function linkAt(path: string): string | undefined {
  try {
    // On the root of a mount the kernel answers this by itself.
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/**
 * The processes that hold the /dev/fuse of the mount with that minor device number, this one
 * included. Empty where the kernel does not tell (`fuse_connection` in fdinfo came with Linux 6.16),
 * or where they are another user's.
 */
export function serversOf(minor: number): number[] {
  return processIds().filter((pid) => holdsConnection(pid, minor));
}

function holdsConnection(pid: number, minor: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => connectionOf(pid, fd) === minor);
  } catch {
    return false;
  }
}

function connectionOf(pid: number, fd: string): number | undefined {
  try {
    if (!readlinkSync(`/proc/${pid}/fd/${fd}`).endsWith('/fuse')) return undefined;
    const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1');
    const connection = /^fuse_connection:\s*(\d+)$/m.exec(info)?.[1];
    return connection === undefined ? undefined : Number(connection);
  } catch {
    return undefined;
  }
}

/**
 * Sets how far the kernel reads ahead in the mount, in KiB. Only root may: false where it did not
 * work, and reading is a little slower.
 */
export function setReadAhead(major: number, minor: number, kib: number): boolean {
  try {
    writeFileSync(`/sys/class/bdi/${major}:${minor}/read_ahead_kb`, String(kib));
    return true;
  } catch {
    return false;
  }
}
