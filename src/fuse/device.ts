/**
 * Mounting: a descriptor of /dev/fuse that belongs to a new mount. Root calls mount(2) itself; for
 * anybody else fusermount3, which is setuid root, does it and sends the descriptor.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, constants, openSync, type Stats, statSync } from 'node:fs';
import { resolve } from 'node:path';
import {
  ERRNO,
  type ErrnoName,
  ImageError,
  SysError,
  describeError,
  errnoName,
  errnoOf,
  errorCode,
} from '../errors.js';
import { MNT, MS, mount, receiveDescriptor, socketPair, umount } from '../sys/mount.js';

/** What findmnt and /proc/mounts show as the type: how our mounts are known. */
export const MOUNT_TYPE = 'fuse.qcow2fs';

export interface MountOptions {
  readonly readOnly: boolean;
  /** Other users may use the mount. An ordinary user needs `user_allow_other` in /etc/fuse.conf. */
  readonly allowOther: boolean;
  /** The kernel checks modes and owners. */
  readonly defaultPermissions: boolean;
  /** Whose mount it is, where root mounts for another. */
  readonly owner?: { readonly uid: number; readonly gid: number } | undefined;
  /** Bytes of the largest READ. */
  readonly maxRead: number;
  /** mount(8)'s names of mount(2)'s flags, in order: a later one wins. */
  readonly kernelFlags: readonly string[];
}

export interface MountRequest {
  /** Shown by findmnt. */
  readonly source: string;
  readonly target: string;
  /** The root of the mount is a regular file, and so is the target; else both are directories. */
  readonly rootIsFile: boolean;
  readonly options: MountOptions;
}

const DEVICE = '/dev/fuse';
const HELPER = 'fusermount3';
/** That of fuse 2, which unmounts as well. */
export const OLD_HELPER = 'fusermount';
export const HELPER_PATH = '/usr/local/bin:/usr/bin:/bin';
const NOT_INSTALLED = `${HELPER} is not installed: an ordinary user needs it (package fuse3)`;

/** The flag that a name sets; with `clears`, the one it takes away. */
interface KernelFlag {
  readonly flag: number;
  readonly clears?: true;
}

const KERNEL_FLAGS: ReadonlyMap<string, KernelFlag> = new Map<string, KernelFlag>([
  ['async', { flag: MS.SYNCHRONOUS, clears: true }],
  ['atime', { flag: MS.NOATIME, clears: true }],
  ['dev', { flag: MS.NODEV, clears: true }],
  ['diratime', { flag: MS.NODIRATIME, clears: true }],
  ['dirsync', { flag: MS.DIRSYNC }],
  ['exec', { flag: MS.NOEXEC, clears: true }],
  ['lazytime', { flag: MS.LAZYTIME }],
  ['noatime', { flag: MS.NOATIME }],
  ['nodev', { flag: MS.NODEV }],
  ['nodiratime', { flag: MS.NODIRATIME }],
  ['noexec', { flag: MS.NOEXEC }],
  ['nolazytime', { flag: MS.LAZYTIME, clears: true }],
  ['norelatime', { flag: MS.RELATIME, clears: true }],
  ['nostrictatime', { flag: MS.STRICTATIME, clears: true }],
  ['nosuid', { flag: MS.NOSUID }],
  ['relatime', { flag: MS.RELATIME }],
  ['strictatime', { flag: MS.STRICTATIME }],
  ['suid', { flag: MS.NOSUID, clears: true }],
  ['sync', { flag: MS.SYNCHRONOUS }],
]);

/** Whether `name` can stand in `kernelFlags`. */
export function isKernelFlag(name: string): boolean {
  return KERNEL_FLAGS.has(name);
}

/**
 * Mounts and answers the descriptor of /dev/fuse, closed on exec. The kernel's INIT waits in it:
 * until that is answered, whoever uses the mount waits. Throws an ImageError that says what is
 * missing or forbidden, or a SysError.
 */
export function mountDevice(request: MountRequest): number {
  checkTarget(request);
  return isRoot() ? mountAsRoot(request) : mountAsUser(request);
}

/**
 * Unmounts what is mounted topmost on `target`. `lazy` takes it away from the tree although it is
 * in use. Throws a SysError EBUSY where it is, or an ImageError with the helper's words.
 */
export function unmountDevice(target: string, { lazy }: { readonly lazy: boolean }): void {
  if (isRoot()) {
    umount(target, lazy ? MNT.DETACH : 0);
    return;
  }
  const args = ['-u', ...(lazy ? ['-z'] : []), '--', target];
  const { status, words } = runHelper(args, [HELPER, OLD_HELPER]);
  if (status === 0) return;
  if (/busy/.test(words)) throw new SysError('umount', ERRNO.EBUSY, `'${target}'`);
  throw new ImageError('policy', 'EPERM', `cannot unmount '${target}': ${words}`);
}

function isRoot(): boolean {
  return process.geteuid!() === 0;
}

/** What lies at a mount point. Throws an ImageError that says why it cannot be one. */
export function statTarget(target: string): Stats {
  const name = `mount point '${target}'`;
  try {
    return statSync(target);
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT') throw new ImageError('missing', code, `${name} does not exist`);
    if (code === 'EACCES') throw new ImageError('policy', code, `${name}: permission denied`);
    if (code !== 'ENOTCONN') throw error;
    throw new ImageError('invalid', code, `${name} is a mount whose server has died: unmount it`);
  }
}

function checkTarget({ target, rootIsFile }: MountRequest): void {
  const stat = statTarget(target);
  if (rootIsFile ? stat.isFile() : stat.isDirectory()) return;
  const name = `mount point '${target}'`;
  if (rootIsFile) throw new ImageError('invalid', 'EINVAL', `${name} is not a regular file`);
  throw new ImageError('invalid', 'ENOTDIR', `${name} is not a directory`);
}

function kernelFlags({
  readOnly,
  kernelFlags: names,
}: Pick<MountOptions, 'readOnly' | 'kernelFlags'>): number {
  let flags = MS.NOSUID | MS.NODEV | (readOnly ? MS.RDONLY : 0);
  for (const name of names) {
    const known = KERNEL_FLAGS.get(name);
    if (known === undefined) {
      throw new ImageError('invalid', 'EINVAL', `unknown mount option '${name}'`);
    }
    flags = known.clears ? flags & ~known.flag : flags | known.flag;
  }
  return flags;
}

/** The options that fuse itself knows, in the kernel's spelling and the helper's. */
function fuseOptions({ maxRead, allowOther, defaultPermissions }: MountOptions): string[] {
  const options = [`max_read=${maxRead}`];
  if (allowOther) options.push('allow_other');
  if (defaultPermissions) options.push('default_permissions');
  return options;
}

/** The flags of a mount by their names, `ro` or `rw` first. */
export function flagWords(options: Pick<MountOptions, 'readOnly' | 'kernelFlags'>): string[] {
  return flagNames(kernelFlags(options));
}

function mountAsRoot({ source, target, rootIsFile, options }: MountRequest): number {
  const flags = kernelFlags(options);
  const fd = openDevice();
  const { owner } = options;
  const data = [
    `fd=${fd}`,
    `rootmode=${rootIsFile ? '100000' : '40000'}`,
    `user_id=${owner?.uid ?? process.geteuid!()}`,
    `group_id=${owner?.gid ?? process.getegid!()}`,
    ...fuseOptions(options),
  ].join(',');
  try {
    mount(source, target, MOUNT_TYPE, flags, data);
  } catch (error) {
    closeSync(fd);
    const code = errnoName(errnoOf(error));
    if (code === 'ENODEV') throw noKernelModule('ENODEV');
    if (code !== 'EPERM' && code !== 'EACCES') throw error;
    throw new ImageError('policy', code, `cannot mount on '${target}': ${describeError(error)}`, {
      limit: 'a container needs the capability CAP_SYS_ADMIN for that',
    });
  }
  return fd;
}

function openDevice(): number {
  try {
    // Node opens everything with O_CLOEXEC.
    return openSync(DEVICE, constants.O_RDWR);
  } catch (error) {
    const code = errnoName(errnoOf(error));
    if (code === 'ENOENT' || code === 'ENODEV' || code === 'ENXIO') throw noKernelModule(code);
    if (code !== 'EPERM' && code !== 'EACCES') throw error;
    throw new ImageError('policy', code, `cannot open ${DEVICE}: ${code}`, {
      limit: 'a container must be given the device, as with --device /dev/fuse',
    });
  }
}

function noKernelModule(code: ErrnoName): ImageError {
  const hint = "the kernel has no fuse; try 'modprobe fuse'";
  return new ImageError('missing', code, `cannot use ${DEVICE}: ${hint}`);
}

function mountAsUser({ source, target, options }: MountRequest): number {
  const list = [
    // The helper sets nosuid and nodev itself, and finds the root's mode by looking at the target.
    `fsname=${escapeOption(source)}`,
    'subtype=qcow2fs',
    ...flagNames(kernelFlags(options)),
    ...fuseOptions(options),
  ].join(',');
  const [ours, theirs] = socketPair();
  try {
    const { status, words } = runHelper(['-o', list, '--', resolve(target)], [HELPER], theirs);
    if (status !== 0) throw refusedBy(target, words);
    const fd = receiveDescriptor(ours);
    if (fd === undefined) throw refusedBy(target, `${HELPER} sent no descriptor of ${DEVICE}`);
    return fd;
  } finally {
    closeSync(ours);
  }
}

/** ',' ends an option in the helper's list, and '\' keeps the next character as it is. */
export function escapeOption(value: string): string {
  return value.replace(/[\\,]/g, '\\$&');
}

/** The names of the flags that are set, less `relatime`: the kernel's default, unknown to the helper. */
function flagNames(flags: number): string[] {
  const names = [...KERNEL_FLAGS]
    .filter(([name, { flag, clears }]) => !clears && name !== 'relatime' && (flags & flag) !== 0)
    .map(([name]) => name);
  return [(flags & MS.RDONLY) !== 0 ? 'ro' : 'rw', ...names];
}

/** Why there is no mount, of what the helper said. */
export function refusedBy(target: string, words: string): ImageError {
  if (/user_allow_other/.test(words)) {
    return new ImageError('policy', 'EPERM', 'allow_other is not open to ordinary users here', {
      limit: "root must put 'user_allow_other' into /etc/fuse.conf",
    });
  }
  // The helper opens the device with the user's rights, although it is setuid root.
  if (words.includes(`open ${DEVICE}: Permission denied`)) {
    return new ImageError('policy', 'EACCES', `cannot open ${DEVICE}: permission denied`, {
      limit: 'users need a mode of 0666, or an entry for them in its ACL',
    });
  }
  if (/fuse device not found|No such device/.test(words)) return noKernelModule('ENODEV');
  const code = /no write access|not owned|ermission denied/.test(words) ? 'EACCES' : 'EPERM';
  return new ImageError('policy', code, `cannot mount on '${target}': ${words}`);
}

interface HelperResult {
  readonly status: number;
  /** What it said on stderr, without its name. */
  readonly words: string;
}

/**
 * Runs the first helper that is there. It sends the descriptor through `socket`, which is closed here after
 * that: else its end would never be seen.
 */
function runHelper(
  args: readonly string[],
  [name, ...others]: readonly [string, ...string[]],
  socket?: number,
): HelperResult {
  const { error, status, signal, stderr } = spawnSync(name, args, {
    stdio: ['ignore', 'ignore', 'pipe', ...(socket === undefined ? [] : [socket])],
    encoding: 'utf8',
    env: {
      // mount(8) gives its helpers a poor PATH; the words below are matched in English.
      PATH: [process.env.PATH, HELPER_PATH].filter(Boolean).join(':'),
      LC_ALL: 'C',
      ...(socket === undefined ? {} : { _FUSE_COMMFD: '3' }),
    },
  });
  if (socket !== undefined) closeSync(socket);
  if (error !== undefined) {
    if (errnoName(errnoOf(error)) !== 'ENOENT') throw error;
    const [next] = others;
    if (next !== undefined) return runHelper(args, [next]);
    throw new ImageError('missing', 'ENOENT', NOT_INSTALLED);
  }
  const words = stderr
    .trim()
    .replace(/^fusermount3?: /gm, '')
    .replace(/\n/g, '; ');
  return { status: status ?? 1, words: words || `${name} ended by ${signal ?? status}` };
}
