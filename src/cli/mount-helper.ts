/**
 * The program as a helper of mount(8) and umount(8), by the link that it is called by: mount runs
 * `/sbin/mount.TYPE SOURCE FOLDER [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`, and umount
 * `/sbin/umount.TYPE FOLDER [-flnrv] [-N NAMESPACE] [-t TYPE]`.
 */
import { getopt } from './getopt.js';
import { withoutUnknown } from './options.js';
import { type HelperCommand, UsageError } from './program.js';

/** The links by which they find it: umount(8) goes by the type that the kernel shows, which begins with `fuse.`. */
export const HELPER_NAMES: readonly string[] = ['mount', 'umount'].flatMap((name) => [
  `${name}.qcow2fs`,
  `${name}.fuse.qcow2fs`,
]);

/** Where they look for them. */
export const HELPER_FOLDER = '/sbin';

const FLAGS = ['s', 'f', 'n', 'v', 'l', 'r'].map((short) => ({ short }));
const VALUES = ['N', 'o', 't'].map((short) => ({ short, value: true as const }));

/** The words of `mount` or `umount` that the helper's words stand for. */
export interface HelperCall {
  readonly command: HelperCommand;
  readonly words: string[];
  /** The words are looked at, and nothing is done. */
  readonly fake: boolean;
  /** What is said when it is done; empty for nothing. */
  readonly told: string;
}

/** Throws a UsageError. */
export function helperCall(command: HelperCommand, words: readonly string[]): HelperCall {
  const args = getopt(words, [...FLAGS, ...VALUES]);
  if (args.has('N')) throw new UsageError("option '-N': other mount namespaces are not entered");
  const told = (done: string): string =>
    args.has('v') ? `${command}.qcow2fs: ${args.operands.join(' on ')} ${done}\n` : '';
  if (command === 'umount') {
    const lazy = args.has('l') ? ['-l'] : [];
    return {
      command,
      words: [...lazy, '--', ...args.operands],
      fake: false,
      told: told('unmounted'),
    };
  }
  const options = args.all('o');
  if (options.some((list) => list.split(',').includes('remount'))) {
    throw new UsageError("option 'remount': unmount, and mount with other options");
  }
  // Sloppy: fstab may be meant for others, too.
  const known = args.has('s') ? options.map(withoutUnknown) : options;
  const listed = [...known.flatMap((list) => ['-o', list]), '--', ...args.operands];
  return { command, words: listed, fake: args.has('f'), told: told('mounted') };
}
