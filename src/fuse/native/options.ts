/** The options of a mount in libfuse 2's words, and what it has no words for. */
import { statSync } from 'node:fs';
import { dirname } from 'node:path';
import { type ErrnoName, ImageError } from '../../errors.js';
import { escapeOption, flagWords } from '../device.js';
import type { MountInput } from '../mounting.js';

/** Bytes for the mount point and for all options that fuse-native has, with a zero behind. */
const ROOM = 1024;

/** Of the names that set a flag of mount(2), those that libfuse 2 does not know. */
const UNKNOWN_FLAGS = ['lazytime', 'nodiratime', 'strictatime'];

/** Seconds for which names are kept that do not change. */
const LASTING_SEC = 3600;

type OptionsInput = Pick<MountInput, 'device' | 'onlyUser' | 'rootIsFile' | 'source' | 'target'>;

/** As one word, `-o…`. Throws an ImageError for what only the kernel transport can do. */
export function nativeOptions({
  source,
  target,
  rootIsFile,
  device,
  onlyUser,
}: OptionsInput): string {
  if (rootIsFile) throw refusal(`'${target}' is a file: it mounts on folders alone`, 'ENOTDIR');
  if (statSync(target).dev !== statSync(dirname(target)).dev) {
    throw refusal(`'${target}' is a mount already`, 'EBUSY');
  }
  const flags = flagWords(device);
  const unknown = flags.find((name) => UNKNOWN_FLAGS.includes(name));
  if (unknown !== undefined) throw refusal(`libfuse 2 does not know '${unknown}'`, 'EINVAL');
  const text = `-o${[
    ...flags,
    ...unsafeFlags(flags),
    `fsname=${escapeOption(source)}`,
    'subtype=qcow2fs',
    ...(onlyUser === undefined ? (device.allowOther ? ['allow_other'] : []) : ['allow_root']),
    ...(device.defaultPermissions ? ['default_permissions'] : []),
    // As the kernel transport does: no page cache for what is written to, under more than one name.
    ...(device.readOnly ? [] : ['direct_io', 'big_writes']),
    // Attributes change with what is written; the size of what is made when it is read is known then.
    `attr_timeout=0,entry_timeout=${device.readOnly ? LASTING_SEC : 0},negative_timeout=0`,
    // Else a snapshot that is open would be renamed, not refused.
    'hard_remove',
    'use_ino',
    'nonempty',
  ].join(',')}`;
  for (const [what, value] of [
    ['mount point', target],
    ['image', text],
  ] as const) {
    if (Buffer.byteLength(value) >= ROOM) {
      throw refusal(`the path of the ${what} is too long`, 'ENAMETOOLONG');
    }
  }
  return text;
}

/** libfuse sets nosuid and nodev by itself; only root may take them away. */
function unsafeFlags(flags: readonly string[]): string[] {
  if (process.geteuid!() !== 0) return [];
  return ['suid', 'dev'].filter((name) => !flags.includes(`no${name}`));
}

function refusal(problem: string, code: ErrnoName): ImageError {
  return new ImageError('unsupported', code, `transport fuse-native: ${problem}`, {
    limit: 'transport=kernel can',
  });
}
