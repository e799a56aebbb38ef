/** Which files of a folder are images, and what tells whether a file is still the one that was looked at. */
import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  realpathSync,
  statSync,
} from 'node:fs';
import { extname } from 'node:path';
import { isExpected } from '../errors.js';
import { isInside } from '../image/file-names.js';
import { OTHER_FORMATS } from '../image/format.js';
import { formatOf, PROBED_SIZE } from '../image/probe.js';

/** Formats that an image is taken for by its name, where nothing in it tells one. */
const FORMAT_OF_NAME: ReadonlyMap<string, string> = new Map([
  ['.img', 'raw'],
  ['.qcow', 'qcow'],
  ['.qcow2', 'qcow2'],
  ['.qed', 'qed'],
  ['.raw', 'raw'],
  ['.vdi', 'vdi'],
  ['.vhd', 'vpc'],
  ['.vhdx', 'vhdx'],
  ['.vmdk', 'vmdk'],
  ['.vpc', 'vpc'],
]);

/** Files that are parts of a VMDK image, which shows what is in them. */
const VMDK_PART = /-(?:flat|delta|sesparse|[fs]\d+)\.vmdk$/i;

/** A file as it was when it was looked at. */
export interface LookedAt {
  readonly stat: BigIntStats;
  /** The format that it is to be opened as; undefined where it is no image. */
  readonly format: string | undefined;
}

/** Says that a file is the same, and holds the same: another one, or a change, makes it another text. */
export function stateOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return `${dev}:${ino}:${size}:${mtimeNs}:${ctimeNs}`;
}

/** Says that it is the same file. */
export function fileOf({ dev, ino }: BigIntStats): string {
  return `${dev}:${ino}`;
}

/**
 * What lies at a path, of a folder or a file that can be an image; undefined for anything else. A link is
 * followed to a file only, and only where that lies in `root`; anywhere where no `root` is given.
 */
export function lookAt(path: string, root: string | undefined): BigIntStats | undefined {
  try {
    if (root === undefined) return kept(statSync(path, { bigint: true }));
    const stat = lstatSync(path, { bigint: true });
    if (!stat.isSymbolicLink()) return kept(stat);
    const real = realpathSync(path);
    if (!isInside(real, root)) return undefined;
    const behind = lstatSync(real, { bigint: true });
    return behind.isDirectory() ? undefined : kept(behind);
  } catch (error) {
    if (!isExpected(error)) throw error;
    return undefined;
  }
}

function kept(stat: BigIntStats): BigIntStats | undefined {
  return stat.isDirectory() || stat.isFile() || stat.isBlockDevice() ? stat : undefined;
}

/**
 * The format that a file is to be opened as: the one that is stated, else by its first bytes, else by its name;
 * undefined where it is no image. `named`: the user has named the file, which is raw then, if nothing else.
 */
export function formatAt(
  path: string,
  stat: BigIntStats,
  stated: string | undefined,
  named: boolean,
): string | undefined {
  if (stated !== undefined) return stated;
  if (!named && VMDK_PART.test(path)) return undefined;
  const probed = probe(path, stat);
  if (probed === 'qcow2' || OTHER_FORMATS.some((format) => format === probed)) return probed;
  // What cannot be read, or does not hold what its name says, is for who opens it to tell.
  const byName = FORMAT_OF_NAME.get(extname(path).toLowerCase());
  return byName ?? (named ? (probed ?? 'raw') : undefined);
}

function probe(path: string, stat: BigIntStats): string | undefined {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      if (fileOf(fstatSync(fd, { bigint: true })) !== fileOf(stat)) return undefined;
      const bytes = Buffer.alloc(PROBED_SIZE);
      return formatOf(bytes.subarray(0, readSync(fd, bytes, 0, PROBED_SIZE, 0)));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (!isExpected(error)) throw error;
    return undefined;
  }
}
