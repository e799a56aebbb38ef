/** What completes: commands, their options and values, in the form that all shells' scripts are made of. */
import type { Command } from '../command.js';
import type { CommandOption, Takes } from '../command-options.js';
import { MOUNT_OPTIONS, type OptionRecord } from '../options.js';

/** What runs before the first word is a command: `qcow2fs IMAGE MOUNTPOINT`. */
export const MOUNT = 'mount';

/** Prints the mount points that `umount` can be given. */
export const LIST_MOUNTS = 'findmnt -lno TARGET -t fuse.qcow2fs 2>/dev/null';

/** Long flags are mount options, too. */
export function optionsOf({ name, options }: Command): readonly CommandOption[] {
  if (name !== MOUNT) return options;
  const named = new Set(options.map(({ long }) => long));
  const others = MOUNT_OPTIONS.filter((option) => !named.has(option.name)).map(asOption);
  return [...options, ...others];
}

function asOption({ name, value, optional, help, takes }: OptionRecord): CommandOption {
  return {
    ...{ long: name, help },
    ...(value !== undefined && { value: optional === true ? 'optional' : true, called: value }),
    ...(takes !== undefined && { takes }),
  };
}

/** The words in a mount's `-o`: `cache=` is followed by a value. */
export function mountWords(): string[] {
  const known = MOUNT_OPTIONS.flatMap(({ name, value, optional }) => [
    ...(value === undefined || optional === true ? [name] : []),
    ...(value === undefined ? [] : [`${name}=`]),
  ]);
  return [...known, 'noatime', 'noexec', 'nodev', 'nosuid'].sort();
}

/** `'` quoted for a shell. */
export function quote(text: string): string {
  return `'${text.replace(/'/g, `'\\''`)}'`;
}

export function isWords(takes: Takes | undefined): takes is readonly string[] {
  return Array.isArray(takes);
}
