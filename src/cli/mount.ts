/** `qcow2fs IMAGE MOUNTPOINT`: opens, mounts, becomes a daemon, and lives until the unmount. */
import { readlinkSync, realpathSync } from 'node:fs';
import { resolve } from 'node:path';
import { describeError, ImageError } from '../errors.js';
import { isKernelFlag, statTarget } from '../fuse/device.js';
import {
  DEFAULT_CACHE_SIZE,
  defaultWorkers,
  type KernelMountInput,
  mountImage,
} from '../fuse/mount.js';
import { mountMany } from '../fuse/mount-many.js';
import type { LiveMount, ServedMount } from '../fuse/mounting.js';
import { KeyRing, type KeySources, type Secrets } from '../image/crypto/key-ring.js';
import { filesOf, type ImageDescription } from '../image/description.js';
import { isInside } from '../image/file-names.js';
import { type OpenedImage, openImage, type OpenPolicy } from '../image/open.js';
import { isDirect } from '../image/write-options.js';
import { infoJson } from '../mount/info-json.js';
import { snapshotFileNames } from '../mount/names.js';
import { MIN_CACHE_SIZE } from '../shared/slice-cache.js';
import {
  type LogDescription,
  type LogTarget,
  log,
  openLog,
  openLogFile,
  printable,
} from '../sys/log.js';
import { sdNotify } from '../sys/process.js';
import { CACHES, LOG_FORMATS } from './command-options.js';
import { type DaemonChannel, daemonChannel, spawnDaemon } from './daemon.js';
import {
  choiceOption,
  integerOption,
  MOUNT_OPTIONS,
  type MountSettings,
  parseMountOptions,
  setOption,
  sizeOption,
  textOption,
  usage as wrongUse,
  wantsWriting,
} from './options.js';
import type { Outcome } from './outcome.js';
import { askBeforehand, mountKeyRing, mountKeys } from './mount-keys.js';
import { isMany, manySettings, memberOpener, shownSource, sourcesOf } from './mount-many.js';
import { forbidPrivileges, mountUser } from './mount-user.js';
import { takeObjects } from './objects.js';
import { openOverlaid } from './overlay.js';
import { problemText } from './program.js';
import { type Shutdown, watchForEnd } from './shutdown.js';
import { chooseTransport } from './transport.js';
import { parseWords } from './words.js';

const MAX_ID = 2 ** 32 - 2;

interface MountCommand {
  /** Images, or folders that hold some. */
  readonly sources: readonly [string, ...string[]];
  readonly target: string;
  readonly settings: MountSettings;
  /** Of `--object`. */
  readonly secrets: Secrets;
}

export async function runMount(words: string[], usage: string): Promise<Outcome> {
  const command = parseMountCommand(words, usage);
  const channel = daemonChannel();
  const foreground = command.settings.has('foreground') || command.settings.has('debug');
  if (channel === undefined) {
    // Bad numbers are told by the process that was called, without starting another.
    const { user } = checkSettings(command.settings, isMany(command.sources));
    if (user !== undefined) forbidPrivileges(foreground);
  }
  if (channel === undefined && !foreground) {
    const asked = asksBeforehand(command);
    return { status: await spawnDaemon(process.argv.slice(1), asked) };
  }
  const shutdown = watchForEnd((message) => channel?.failed(message, 1));
  try {
    return await Promise.race([serveMount(command, channel, shutdown), shutdown.ended]);
  } catch (error) {
    if (channel === undefined) throw error;
    channel.failed(problemText(error), 1);
    // Some workers may have started, and wait in the kernel.
    return { status: 1, atOnce: true };
  }
}

/** Throws what is wrong with the words of a mount, as far as that is seen without its image. */
export function checkMount(words: string[]): void {
  const { settings, sources } = parseMountCommand(words, '');
  checkSettings(settings, isMany(sources));
}

function parseMountCommand(words: string[], usage: string): MountCommand {
  const flags = MOUNT_OPTIONS.filter(({ value }) => value === undefined).map(({ name }) => name);
  const values = MOUNT_OPTIONS.filter(({ value }) => value !== undefined).map(({ name }) => name);
  const spec = {
    flags,
    values: ['o', 'object', ...values],
    alias: { f: 'foreground', d: 'debug', v: 'verbose' },
    operands: ['IMAGE', 'MOUNTPOINT'],
    more: true,
  };
  const parsed = parseWords(words.map(withOptionalValue), spec, usage);
  const settings = parseMountOptions(parsed.values('o'));
  for (const name of spec.flags) if (parsed.flag(name)) setOption(settings, name, undefined);
  for (const name of values) {
    const value = parsed.values(name).at(-1);
    if (value !== undefined) setOption(settings, name, value);
  }
  const [first, ...others] = parsed.operands as [string, string, ...string[]];
  const target = others.pop()!;
  const secrets = takeObjects(parsed.values('object'));
  return { sources: [first, ...others], target, settings, secrets };
}

/** Which of many images is encrypted is known when somebody looks at it: their keys are given, not asked for. */
function asksBeforehand(command: MountCommand): readonly Uint8Array[] {
  const { settings, sources } = command;
  if (isMany(sources)) return [];
  return askBeforehand(keySources(command), openPolicy(settings), sources[0]);
}

function keySources({ settings, secrets }: MountCommand): KeySources {
  return mountKeys(textOption(settings, 'key-file'), textOption(settings, 'key-secret'), secrets);
}

/** `--overlay` as `-ooverlay`: there the value may be left out. */
function withOptionalValue(word: string): string {
  const optional = MOUNT_OPTIONS.filter((record) => record.optional === true);
  const is = optional.some(({ name }) => word === `--${name}` || word.startsWith(`--${name}=`));
  return is ? `-o${word.slice(2).replace(/[\\,]/g, '\\$&')}` : word;
}

/** The settings as numbers; throws what is wrong with them. */
function checkSettings(settings: MountSettings, many: boolean) {
  const logFile = textOption(settings, 'log');
  checkWriting(settings);
  return {
    ...manySettings(settings, many),
    write: {
      cache: choiceOption(settings, 'cache', CACHES),
      discard: choiceOption(settings, 'discard', ['unmap', 'ignore']),
      detectZeroes: choiceOption(settings, 'detect-zeroes', ['off', 'on', 'unmap']),
    },
    ownership: {
      uid: integerOption(settings, 'uid', 0, MAX_ID),
      gid: integerOption(settings, 'gid', 0, MAX_ID),
      umask: integerOption(settings, 'umask', 0, 0o777, 8),
    },
    cacheSize: sizeOption(settings, 'cache-size', MIN_CACHE_SIZE, 2 ** 32) ?? DEFAULT_CACHE_SIZE,
    workers: integerOption(settings, 'workers', 1, 64) ?? defaultWorkers(),
    transport: many ? 'kernel' : chooseTransport(settings),
    user: mountUser(settings),
    logFile: logFile === undefined ? undefined : resolve(logFile),
    logFormat: choiceOption(settings, 'log-format', LOG_FORMATS) ?? 'text',
  };
}

/** What does not go together with writing. */
function checkWriting(settings: MountSettings): void {
  const overlay = settings.has('overlay');
  if (overlay && settings.has('ro') && !wantsWriting(settings)) {
    throw wrongUse('overlay', 'it is there to be written to', "not with 'ro'");
  }
  if (!overlay && !wantsWriting(settings)) return;
  const name = overlay ? 'overlay' : 'rw';
  if (settings.has('force-share')) {
    throw wrongUse(name, 'an image that others write to is read at most', "not with 'force-share'");
  }
  if (!overlay && settings.has('snapshot')) {
    throw wrongUse(name, 'snapshots are not written to', "with 'snapshot', use 'overlay'");
  }
}

function openPolicy(settings: MountSettings): OpenPolicy {
  return {
    format: textOption(settings, 'format'),
    noBacking: settings.has('no-backing'),
    backingRoot: textOption(settings, 'backing-root'),
    lock: settings.has('force-share') ? undefined : 'read',
    writable: !settings.has('overlay') && wantsWriting(settings),
    direct: isDirect(choiceOption(settings, 'cache', CACHES)),
  };
}

/** Opens the image as the settings say, with an overlay where they ask for one. */
function openAs(settings: MountSettings, path: string, keys: KeyRing): OpenedImage {
  const overlay = settings.get('overlay');
  const policy = openPolicy(settings);
  if (overlay === undefined) {
    return openImage({ path, filename: path, keys, forceShare: false }, policy);
  }
  return openOverlaid({
    image: path,
    policy,
    keys,
    file: overlay === true ? undefined : overlay,
    snapshot: (base) => {
      const index = findSnapshot(base, textOption(settings, 'snapshot'));
      const top = base.layers[0];
      return index === null || top.format !== 'qcow2' ? undefined : top.snapshots[index];
    },
  });
}

async function serveMount(
  command: MountCommand,
  channel: DaemonChannel | undefined,
  shutdown: Shutdown,
): Promise<Outcome> {
  const { sources, settings } = command;
  const many = isMany(sources);
  const { user, logFile, logFormat, ...checked } = checkSettings(settings, many);
  const trace = settings.has('debug');
  const logging: LogDescription = {
    target: logTarget(logFile, channel !== undefined),
    format: logFormat,
    level: trace ? 'debug' : settings.has('verbose') ? 'info' : 'warning',
  };
  // Another user's mount stays open to root, who made it.
  const allowRoot =
    settings.has('allow_root') || (user !== undefined && !settings.has('allow_other'));
  const allowOther = settings.has('allow_other') || allowRoot;
  const common = {
    ...checked,
    device: {
      allowOther,
      defaultPermissions: allowOther || settings.has('default_permissions'),
      kernelFlags: kernelFlags(settings, user !== undefined),
    },
    onlyUser: allowRoot ? (user?.uid ?? process.getuid!()) : undefined,
    user,
    log: logging,
    trace,
    onMounted: (mount: ServedMount) => shutdown.mounted(mount),
  };
  const mount = many ? mountAll : mountOne;
  const { live, source, target } = await mount(command, channel, common);
  if (channel !== undefined && shutdown.stopping()) {
    throw new ImageError('policy', 'EINTR', 'interrupted by a signal while mounting');
  }
  channel?.ready();
  const served = `${source} is served on ${target}`;
  sdNotify(`READY=1\nSTATUS=${printable(served)}`);
  log.info(served, { source, target, transport: checked.transport, workers: checked.workers });
  try {
    await live.closed;
    log.info(`${source} is released from ${target}`, { source, target });
    // What libfuse leaves behind would keep the process.
    return { status: 0, atOnce: checked.transport !== 'kernel' };
  } catch (error) {
    log.error(describeError(error));
    return { status: 1, atOnce: true };
  }
}

/**
 * What is passed to the kernel. A mount that another user serves has no programs and no devices of root's: mount(8)
 * takes `user=NAME` for its own `user`, and then lets root's mounts have both.
 */
function kernelFlags(settings: MountSettings, isDropped: boolean): string[] {
  const names = [...settings.keys()].filter(isKernelFlag);
  return isDropped ? names.filter((name) => name !== 'suid' && name !== 'dev') : names;
}

/** What is the same for one image and for many. */
type Common = Omit<ReturnType<typeof checkSettings>, 'logFile' | 'logFormat'> &
  Pick<KernelMountInput, 'onlyUser' | 'log' | 'trace' | 'onMounted'> & {
    readonly device: Omit<KernelMountInput['device'], 'readOnly'>;
  };

interface Mounted {
  readonly live: LiveMount;
  readonly source: string;
  readonly target: string;
}

async function mountOne(
  command: MountCommand,
  channel: DaemonChannel | undefined,
  common: Common,
): Promise<Mounted> {
  const { settings, sources } = command;
  const [imageName] = sources;
  const source = resolve(imageName);
  const overlaid = settings.has('overlay');
  const image = openAs(settings, source, mountKeyRing(keySources(command), channel?.passphrases));
  const { target, isFile } = checkTarget(command.target, image.description);
  openLog(common.log);
  const native =
    common.transport === 'kernel' ? undefined : await import('../fuse/native/mount.js');
  for (const warning of [...image.warnings, ...(native === undefined ? [] : [native.LIMITS])]) {
    process.stderr.write(`qcow2fs: warning: ${printable(warning)}\n`);
    if (common.log.target !== 'stderr') log.warning(warning);
  }
  const mount = native?.mountNative ?? mountImage;
  const live = await mount({
    ...common,
    ...{ image, imageName, source, target, overlaid, rootIsFile: isFile },
    // An overlay shows the snapshot as its own disk.
    snapshot: overlaid ? null : findSnapshot(image.description, textOption(settings, 'snapshot')),
    info: infoJson(image.description.layers[0], imageName),
    device: { ...common.device, readOnly: !image.description.writable },
  });
  return { live, source, target };
}

async function mountAll(
  command: MountCommand,
  _channel: DaemonChannel | undefined,
  common: Common,
): Promise<Mounted> {
  const { settings } = command;
  const { sources, target } = sourcesOf(command.sources, command.target);
  const { backingRoot, ...rest } = openPolicy(settings);
  // Images are opened later, from elsewhere.
  const policy = { ...rest, backingRoot: backingRoot && resolve(backingRoot) };
  const writable = policy.writable === true;
  openLog(common.log);
  const source = shownSource(sources.map(({ path }) => path));
  const live = await mountMany({
    ...common,
    ...{ sources, source, target, writable, format: policy.format, rootIsFile: false },
    openFile: memberOpener(policy, new KeyRing(keySources(command))),
    device: { ...common.device, readOnly: !writable },
  });
  return { live, source, target };
}

/** Where messages go: a file, the terminal that looks on, or syslog. */
function logTarget(file: string | undefined, daemon: boolean): LogTarget {
  if (file !== undefined) return { fd: openLogFile(file) };
  return daemon ? 'syslog' : 'stderr';
}

/** The mount point: absolute, links followed. None of the image's files may lie in it. */
function checkTarget(
  path: string,
  description: ImageDescription,
): { target: string; isFile: boolean } {
  const stat = statTarget(path);
  if (!stat.isDirectory() && !stat.isFile()) {
    throw new ImageError('invalid', 'ENOTDIR', `mount point '${path}' is no folder and no file`);
  }
  const target = realpathSync(path);
  for (const { fd } of stat.isDirectory() ? description.layers.flatMap(filesOf) : []) {
    // The files themselves, wherever links to them lie.
    const real = readlinkSync(`/proc/self/fd/${fd}`);
    if (!isInside(real, target)) continue;
    throw new ImageError('invalid', 'EBUSY', `mount point '${path}' would hide '${real}'`, {
      limit: 'an image cannot lie inside its own mount point',
    });
  }
  return { target, isFile: stat.isFile() };
}

/** The snapshot of that id, else of that name, else of the name that the mounted tree shows. */
function findSnapshot(description: ImageDescription, wanted: string | undefined): number | null {
  if (wanted === undefined) return null;
  const top = description.layers[0];
  const snapshots = top.format === 'qcow2' ? top.snapshots : [];
  const byId = snapshots.findIndex(({ id }) => id === wanted);
  const byName = snapshots.findIndex(({ name }) => name === wanted);
  const shown = () => snapshotFileNames(snapshots).indexOf(wanted);
  const index = byId >= 0 ? byId : byName >= 0 ? byName : shown();
  if (index < 0) {
    throw new ImageError('missing', 'ENOENT', `${top.file.path}: no snapshot '${wanted}'`);
  }
  return index;
}
