/**
 * What makes umount(8) run its helper. As root it looks at the file system itself, sees `fuse`, and asks for no other
 * helper than that of all such file systems; but where util-linux has a record of the mount, by its type.
 */
import { spawnSync } from 'node:child_process';
import { HELPER_PATH, MOUNT_TYPE } from '../fuse/device.js';
import { findMount } from '../fuse/mountinfo.js';

/** Any option for users of the record alone; mount(8) ignores all that begin so. */
const MARK = 'x-qcow2fs';
/** What is asked of the record when the machine shuts down. */
const KEPT = ['_netdev'];

/**
 * Lets mount(8) make the record of the mount that was made by these words, which end with its mount point. It does not make
 * another one itself then. Where it cannot, umount(8) does not wait: that is all.
 */
export function recordMount(words: readonly string[]): void {
  const mount = process.geteuid!() === 0 ? findMount(words.at(-1)!) : undefined;
  if (mount?.type !== MOUNT_TYPE) return;
  const given = words.flatMap((word) => word.split(','));
  const options = [MARK, ...KEPT.filter((option) => given.includes(option))].join(',');
  // --fake: nothing is mounted.
  const call = ['--fake', '--internal-only', '-t', MOUNT_TYPE, '-o', options];
  spawnSync('mount', [...call, '--', mount.source, mount.target], {
    stdio: 'ignore',
    env: { PATH: HELPER_PATH },
  });
}
