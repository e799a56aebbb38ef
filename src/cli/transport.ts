/** How a mount speaks with the kernel: by itself, or through the package fuse-native. */
import { OLD_HELPER } from '../fuse/device.js';
import { hasFuseNative } from '../fuse/native/binding.js';
import { TRANSPORTS } from './command-options.js';
import { findProgram } from './find-program.js';
import { choiceOption, type MountSettings, usage as wrongUse } from './options.js';

export type Transport = 'kernel' | 'fuse-native';

/** What there is on this machine. */
export interface Means {
  readonly isRoot: boolean;
  has(program: string): boolean;
  hasFuseNative(): boolean;
}

const MEANS: Means = {
  isRoot: process.geteuid!() === 0,
  has: (program) => findProgram(program) !== undefined,
  hasFuseNative,
};

/** Options that only the kernel transport takes, with what to say of each. */
const KERNEL_ONLY = [
  ['user', 'libfuse 2 serves who mounts'],
  ['workers', 'one thread serves requests'],
] as const;

/**
 * The transport that is asked for, or that works: `kernel`, unless an ordinary user lacks the helper that it takes
 * and has the one of fuse 2. Throws an ImageError for what does not go together.
 */
export function chooseTransport(settings: MountSettings, means: Means = MEANS): Transport {
  const wanted = choiceOption(settings, 'transport', TRANSPORTS);
  if (wanted === 'kernel') return wanted;
  const [refused] = KERNEL_ONLY.filter(([name]) => settings.has(name));
  if (wanted === 'fuse-native') {
    if (refused === undefined) return wanted;
    throw wrongUse(refused[0], refused[1], "not with 'transport=fuse-native'");
  }
  if (means.isRoot || refused !== undefined || means.has('fusermount3')) return 'kernel';
  return means.has(OLD_HELPER) && means.hasFuseNative() ? 'fuse-native' : 'kernel';
}
