/** `qcow2fs SOURCE… MOUNTPOINT`: a folder, or several images and folders. */
import { realpathSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { ImageError } from '../errors.js';
import { statTarget } from '../fuse/device.js';
import type { KeyRing } from '../image/crypto/key-ring.js';
import { formatDriver } from '../image/formats.js';
import { type OpenedImage, openImage, type OpenPolicy } from '../image/open.js';
import type { ImageFile, Source } from '../mount/catalogue.js';
import { isInside } from '../image/file-names.js';
import { integerOption, type MountSettings, usage as wrongUse } from './options.js';

const DEFAULT_IDLE = 60;
const MOST_IDLE = 86_400;
const DEFAULT_MAX_OPEN = 64;
const MOST_OPEN = 4096;
/** Bytes of all their paths that are shown. */
const LONGEST_SOURCE = 1024;

/** What only mounts of many images have. */
const OF_MANY = ['idle', 'max-open'] as const;
/** What they cannot have: it is about one disk. */
const OF_ONE = ['overlay', 'snapshot'] as const;

/** Whether what is to be mounted is not one image. */
export function isMany(paths: readonly string[]): boolean {
  if (paths.length > 1) return true;
  return statSync(paths[0]!, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** What `settings` say of many images; throws what does not go with that, or with one. */
export function manySettings(settings: MountSettings, many: boolean) {
  for (const name of many ? OF_ONE : OF_MANY) {
    if (!settings.has(name)) continue;
    throw wrongUse(name, many ? 'not with many images' : 'only with many images', 'one mount each');
  }
  if (many && settings.get('transport') === 'fuse-native') {
    throw wrongUse('transport', 'fuse-native serves one image', 'kernel');
  }
  return {
    idle: integerOption(settings, 'idle', 1, MOST_IDLE) ?? DEFAULT_IDLE,
    maxOpen: integerOption(settings, 'max-open', 1, MOST_OPEN) ?? DEFAULT_MAX_OPEN,
  };
}

/** What `findmnt` shows of the sources: the kernel takes no more than a page. */
export function shownSource(paths: readonly string[]): string {
  const all = paths.join(',');
  if (paths.length === 1 || Buffer.byteLength(all) <= LONGEST_SOURCE) return all;
  return `${paths[0]} and ${paths.length - 1} more`;
}

/** The sources as they are shown, and the mount point, a folder that hides none of them. */
export function sourcesOf(
  paths: readonly string[],
  targetPath: string,
): { sources: Source[]; target: string } {
  if (!statTarget(targetPath).isDirectory()) {
    const message = `mount point '${targetPath}' is not a directory`;
    throw new ImageError('invalid', 'ENOTDIR', message, { limit: 'many images need one' });
  }
  const target = realpathSync(targetPath);
  const sources = paths.map((path) => {
    return { name: paths.length === 1 ? '' : basename(path), path: realpathSync(path) };
  });
  const names = new Set<string>();
  for (const { name, path } of sources) {
    if (path === target || isInside(path, target)) {
      throw new ImageError('invalid', 'EBUSY', `mount point '${targetPath}' would hide '${path}'`, {
        limit: 'a source cannot lie inside its own mount point',
      });
    }
    if (names.has(name)) {
      throw new ImageError('invalid', 'EEXIST', `two of the sources are called '${name}'`, {
        limit: 'each is shown under its own name',
      });
    }
    names.add(name);
  }
  return { sources, target };
}

/**
 * Opens images as the policy says. Those of formats that cannot be written to are opened for reading, as are raw
 * ones whose format nobody has stated: a guest could make another format of them.
 */
export function memberOpener(policy: OpenPolicy, keys: KeyRing): (image: ImageFile) => OpenedImage {
  return ({ path, format }) => {
    const stated = policy.format !== undefined;
    const canWrite =
      format === 'qcow2' ||
      (format === 'raw' ? stated : formatDriver(format)?.writing !== undefined);
    const writable = policy.writable === true && canWrite;
    const forceShare = policy.writable === true ? undefined : false;
    const spec = { path, filename: path, keys, forceShare };
    return openImage(spec, { ...policy, format, writable });
  };
}
