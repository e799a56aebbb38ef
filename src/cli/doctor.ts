/** What a machine has of all that mounting needs, and how to get the rest. Nothing here changes anything. */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  openSync,
  readFileSync,
  statfsSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeError, errnoName, errnoOf, ImageError, isExpected } from '../errors.js';
import { OLD_HELPER } from '../fuse/device.js';
import { findFuseNative, hasFuseNative } from '../fuse/native/binding.js';
import { O_TMPFILE } from '../sys/file.js';
import { strerror } from '../sys/libc.js';
import { isLockedByOthers, lockByte, unlockByte } from '../sys/locks.js';
import { findProgram, isExecutable } from './find-program.js';
import { HELPER_FOLDER, HELPER_NAMES } from './mount-helper.js';

/** `optional`: what is missing there, images can be mounted without. */
export type Health = 'ok' | 'optional' | 'missing';

export interface Finding {
  readonly name: string;
  readonly health: Health;
  readonly found: string;
  /** How to get what is missing. */
  readonly remedy?: string;
}

const LEAST_NODE = 20;
const SETUID = 0o4000;
const CAP_SYS_ADMIN = 21n;
/** Less free space than this is told. */
const GIB = 1 << 30;

/** The findings, what is needed first. */
export function examineMachine(): Finding[] {
  const root = process.geteuid!() === 0;
  const program = node();
  // Without system calls of its own it finds nothing else out.
  if (nativeProblem() !== undefined) return [program];
  return [
    program,
    device(),
    ...(root ? [capability()] : [fusermount(), userName()]),
    locks(),
    ...(root ? [] : [allowOther()]),
    helpers(),
    loops(),
    fuseNative(),
    space(),
    log(),
  ];
}

function ok(name: string, found: string): Finding {
  return { name, health: 'ok', found };
}

function lacks(name: string, health: Health, found: string, remedy: string): Finding {
  return { name, health, found, remedy };
}

function node(): Finding {
  const { node: version } = process.versions;
  const problem = nativeProblem();
  if (problem !== undefined) {
    const remedy = 'install it again: npm leaves out what it cannot fetch, and says nothing';
    return lacks('program', 'missing', problem, remedy);
  }
  const found = `Node.js ${version}, ${process.platform}-${process.arch}, native calls work`;
  if (Number.parseInt(version, 10) >= LEAST_NODE) return ok('program', found);
  return lacks('program', 'missing', found, `install Node.js ${LEAST_NODE} or later`);
}

/** Why the C library cannot be called; undefined where it can. */
function nativeProblem(): string | undefined {
  try {
    strerror(0);
    return undefined;
  } catch (error) {
    return describeError(error);
  }
}

function device(): Finding {
  const name = '/dev/fuse';
  try {
    closeSync(openSync(name, constants.O_RDWR));
    return ok(name, 'it can be opened');
  } catch (error) {
    const code = errnoName(errnoOf(error));
    const found = `it cannot be opened: ${code}`;
    if (code === 'ENOENT' || code === 'ENODEV' || code === 'ENXIO') {
      const remedy = "run 'modprobe fuse' as root; start a container with --device /dev/fuse";
      return lacks(name, 'missing', found, remedy);
    }
    const remedy =
      process.geteuid!() === 0
        ? 'start the container with --device /dev/fuse'
        : "run 'chmod 666 /dev/fuse' as root, or let udev do it; with --device in a container";
    return lacks(name, 'missing', found, remedy);
  }
}

function capability(): Finding {
  const name = 'right to mount';
  const bits = statusField('CapEff');
  if (bits === undefined || (BigInt(`0x${bits}`) >> CAP_SYS_ADMIN) & 1n) {
    return ok(name, 'root, with CAP_SYS_ADMIN');
  }
  const remedy = 'start the container with --cap-add SYS_ADMIN --security-opt apparmor=unconfined';
  return lacks(name, 'missing', 'root, without CAP_SYS_ADMIN', remedy);
}

function fusermount(): Finding {
  const name = 'fusermount3';
  const path = findProgram(name);
  if (path === undefined) {
    const remedy = 'install the package fuse3; or mount as root';
    if (findProgram(OLD_HELPER) === undefined || !hasFuseNative()) {
      return lacks(name, 'missing', 'it is not installed', remedy);
    }
    return lacks(name, 'optional', 'it is not installed: mounts go through fuse-native', remedy);
  }
  const { mode, uid } = statSync(path);
  if ((mode & SETUID) === 0 || uid !== 0) {
    const remedy = `run 'chown root ${path} && chmod u+s ${path}' as root`;
    return lacks(name, 'missing', `${path} is not setuid root`, remedy);
  }
  if (statusField('NoNewPrivs') === '1') {
    const remedy = 'start the container without --security-opt no-new-privileges';
    return lacks(name, 'missing', `${path}: new privileges are forbidden here`, remedy);
  }
  return ok(name, path);
}

/** The other transport, which few need. */
function fuseNative(): Finding {
  const name = 'fuse-native';
  try {
    findFuseNative();
    return ok(name, 'transport=fuse-native is there, too');
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const found = `no transport=fuse-native: ${error.message}`;
    return lacks(name, 'optional', found, error.context.limit ?? '');
  }
}

function userName(): Finding {
  const name = 'user name';
  const id = process.geteuid!();
  const known = linesOf('/etc/passwd').find((line) => line.split(':')[2] === String(id));
  if (known !== undefined) return ok(name, known.split(':')[0]!);
  const remedy = `add a user of that number to /etc/passwd: 'useradd -u ${id} NAME'`;
  // Other sources of names are not looked into: fusermount3 may know better.
  return lacks(name, 'optional', `no user ${id} in /etc/passwd; fusermount3 needs a name`, remedy);
}

function allowOther(): Finding {
  const name = 'allow_other';
  const open = linesOf('/etc/fuse.conf').some((line) => line.trim() === 'user_allow_other');
  if (open) return ok(name, 'open to ordinary users');
  const remedy = "put the line 'user_allow_other' into /etc/fuse.conf, as root";
  return lacks(name, 'optional', 'not open to ordinary users', remedy);
}

function loops(): Finding {
  const name = 'loop devices';
  if (!existsSync('/dev/loop-control')) {
    const remedy = "run 'modprobe loop' as root; in a container, --privileged";
    return lacks(name, 'optional', 'there are none: no mount -o loop', remedy);
  }
  try {
    accessSync('/dev/loop-control', constants.R_OK | constants.W_OK);
    return ok(name, 'mount -o loop can use them');
  } catch {
    const remedy = 'use sudo for mount -o loop; debugfs, 7z and fuse2fs need no loop device';
    return lacks(name, 'optional', 'for root alone', remedy);
  }
}

/** Of mount(8) and umount(8): without them images are mounted all the same. */
function helpers(): Finding {
  const name = 'mount helpers';
  const paths = HELPER_NAMES.map((helper) => join(HELPER_FOLDER, helper));
  const broken = paths.filter((path) => !isExecutable(path) && isLink(path));
  if (broken.length > 0) {
    const remedy = `as root: rm ${broken.join(' ')} && qcow2fs install-helpers`;
    return lacks(name, 'optional', `${broken.join(', ')}: links that lead nowhere`, remedy);
  }
  const absent = HELPER_NAMES.filter((_, index) => !isExecutable(paths[index]!));
  if (absent.length === 0) return ok(name, `${HELPER_FOLDER}: mount -t qcow2fs works, and fstab`);
  const found = `${HELPER_FOLDER} lacks ${absent.join(', ')}: no mount -t qcow2fs, no fstab`;
  return lacks(name, 'optional', found, "run 'qcow2fs install-helpers' as root");
}

function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
}

/** Tried in the current folder: on a file without a name, and where none can be made, on the folder. */
function locks(): Finding {
  const name = 'image locks';
  const folder = process.cwd();
  const opened: number[] = [];
  const open = (path: string, flags: number): number => {
    opened.push(openSync(path, flags));
    return opened.at(-1)!;
  };
  try {
    const [file, fd] = openToLock(folder, open);
    if (!lockByte(fd, 0)) throw new Error('held by others');
    // What says yes to all, keeps nobody out.
    const kept = isLockedByOthers(open(`/proc/self/fd/${fd}`, constants.O_RDONLY), 0);
    if (!kept) throw new Error('they are taken, but not kept');
    unlockByte(fd, 0);
    return ok(name, `${folder} knows them, tried on ${file}`);
  } catch (error) {
    const words = isExpected(error) ? errnoName(errnoOf(error)) : (error as Error).message;
    const remedy = "keep images elsewhere, or mount with 'force-share'";
    return lacks(name, 'optional', `${folder}: ${words}`, remedy);
  } finally {
    for (const fd of opened) closeSync(fd);
  }
}

function openToLock(
  folder: string,
  open: (path: string, flags: number) => number,
): [what: string, fd: number] {
  try {
    return ['a file', open(folder, O_TMPFILE | constants.O_RDWR)];
  } catch (error) {
    if (!isExpected(error)) throw error;
    return ['the folder', open(folder, constants.O_RDONLY)];
  }
}

function space(): Finding {
  const name = 'temporary files';
  const folder = tmpdir();
  const remedy = 'set TMPDIR to a folder with more space (overlays that are thrown away use it)';
  try {
    accessSync(folder, constants.W_OK);
    const { bavail, bsize } = statfsSync(folder);
    const free = bavail * bsize;
    const found = `${folder}: ${(free / GIB).toFixed(1)} GiB free`;
    return free >= GIB ? ok(name, found) : lacks(name, 'optional', found, remedy);
  } catch (error) {
    return lacks(name, 'optional', `${folder}: ${errnoName(errnoOf(error))}`, remedy);
  }
}

function log(): Finding {
  const name = 'system log';
  if (existsSync('/dev/log')) return ok(name, '/dev/log takes messages of mounts');
  const remedy = "mount with 'log=FILE', or install journald, rsyslog or the like";
  return lacks(name, 'optional', 'no /dev/log: messages of mounts go nowhere', remedy);
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n');
  } catch {
    return [];
  }
}

/** A line of this process's status, as the kernel shows it. */
function statusField(name: string): string | undefined {
  const line = linesOf('/proc/self/status').find((text) => text.startsWith(`${name}:`));
  return line?.slice(name.length + 1).trim();
}
