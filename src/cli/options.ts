/**
 * The options of a mount, in `-o a,b=c` and as long flags alike: one table for parsing, checks and
 * help.
 */
import { ImageError } from '../errors.js';
import { isKernelFlag } from '../fuse/device.js';
import { CACHES, FORMATS, LOG_FORMATS, type Takes, TRANSPORTS } from './command-options.js';

/**
 * What mount(8) and fstab may say in -o without meaning anything here: it is for others, or for who
 * may mount and when. mount(8) hands most of it on to its helpers. Accepted and ignored, as are
 * `comment=…` and `x-…`.
 */
const MEANINGLESS: readonly string[] = [
  '_netdev',
  'auto',
  'defaults',
  'group',
  'noauto',
  'nofail',
  'nouser',
  'owner',
  'user',
  'users',
];

function isMeaningless(name: string): boolean {
  return MEANINGLESS.includes(name) || name === 'comment' || /^x-/i.test(name);
}

export interface OptionRecord {
  readonly name: string;
  /** What the value is called in the help; none for a flag. */
  readonly value?: string;
  /** It can stand without a value, too. */
  readonly optional?: true;
  readonly help: string;
  readonly takes?: Takes;
}

/** Sorted; `qcow2fs --help` prints it. */
export const MOUNT_OPTIONS: readonly OptionRecord[] = [
  { name: 'allow_other', help: 'let other users use the mount, by the modes of its files' },
  { name: 'allow_root', help: 'let root use the mount of an ordinary user' },
  {
    name: 'backing-root',
    value: 'DIR',
    help: 'open only files in DIR that the image names',
    takes: 'folder',
  },
  {
    name: 'cache',
    value: 'MODE',
    help: 'of writes: writeback (default), writethrough, none, directsync, unsafe',
    takes: CACHES,
  },
  { name: 'cache-size', value: 'SIZE', help: 'metadata cache in bytes, or with K, M, G (32M)' },
  { name: 'debug', help: 'trace every request; stays in the foreground' },
  { name: 'default_permissions', help: 'let the kernel check the modes of files' },
  {
    name: 'detect-zeroes',
    value: 'MODE',
    help: 'zeroes written: off (default), on, unmap',
    takes: ['off', 'on', 'unmap'],
  },
  {
    name: 'discard',
    value: 'MODE',
    help: 'of punched holes: unmap (default), ignore',
    takes: ['unmap', 'ignore'],
  },
  { name: 'force-share', help: 'read an image that another process writes to, unlocked' },
  { name: 'foreground', help: 'do not become a daemon' },
  {
    name: 'format',
    value: 'FMT',
    help: "the image's format: qcow2, raw ... (probed)",
    takes: FORMATS,
  },
  { name: 'gid', value: 'N', help: "group of the files, instead of the image's" },
  { name: 'idle', value: 'SECONDS', help: 'of many images: close one that is unused so long (60)' },
  {
    name: 'key-file',
    value: 'FILE',
    help: "an encrypted image's passphrase: all of FILE",
    takes: 'file',
  },
  {
    name: 'key-secret',
    value: 'ID',
    help: 'the same, from --object secret,id=ID,…; ID:ID… for several',
  },
  { name: 'log', value: 'FILE', help: 'append messages to FILE, instead of syslog', takes: 'file' },
  {
    name: 'log-format',
    value: 'FORMAT',
    help: 'of messages: text (default), json (an object a line)',
    takes: LOG_FORMATS,
  },
  { name: 'max-open', value: 'N', help: 'of many images: so many are open at most (64)' },
  { name: 'no-backing', help: 'refuse images that name another file' },
  {
    ...{ name: 'overlay', value: 'FILE', optional: true },
    help: 'write to a qcow2 overlay, kept in FILE or thrown away; the image stays as it is',
    takes: 'file',
  },
  { name: 'ro', help: 'read-only (the default)' },
  { name: 'rw', help: 'the image can be written to' },
  { name: 'snapshot', value: 'NAME', help: 'mount this snapshot (name or id) as the disk' },
  {
    name: 'transport',
    value: 'NAME',
    help: 'how to speak with the kernel: auto (default), kernel, fuse-native',
    takes: TRANSPORTS,
  },
  { name: 'uid', value: 'N', help: "owner of the files, instead of the image's" },
  { name: 'umask', value: 'OCTAL', help: 'modes of the files: read for all, less these bits' },
  {
    name: 'user',
    value: 'NAME',
    help: 'once mounted, root gives up its rights and is that user (name or number)',
  },
  { name: 'verbose', help: 'tell of what is opened and closed, too' },
  { name: 'workers', value: 'N', help: 'threads that serve requests (cores + 1)' },
];

/** Between commas; `\\,` is part of a word. */
const WORDS = /(?:\\.|[^,\\])+/g;

export type MountSettings = ReadonlyMap<string, string | true>;

/** Splits the words of `-o` (commas in a value as `\,`) and checks them against the table. */
export function parseMountOptions(words: readonly string[]): Map<string, string | true> {
  const settings = new Map<string, string | true>();
  for (const word of words.flatMap(splitCommas)) {
    const equals = word.indexOf('=');
    const name = equals < 0 ? word : word.slice(0, equals);
    setOption(settings, name, equals < 0 ? undefined : word.slice(equals + 1));
  }
  return settings;
}

/** The words of one `-o`, without the options that are not known. */
export function withoutUnknown(list: string): string {
  const isKnown = (word: string): boolean => {
    const name = word.replace(/\\(.)/g, '$1').replace(/=.*/s, '');
    return MOUNT_OPTIONS.some((record) => record.name === name) || isKernelFlag(name);
  };
  return (list.match(WORDS) ?? []).filter(isKnown).join(',');
}

/** Adds one option, checked. */
export function setOption(
  settings: Map<string, string | true>,
  name: string,
  value: string | undefined,
): void {
  // `user` alone is fstab's: who may mount.
  if (value === undefined && isMeaningless(name)) return;
  const record = MOUNT_OPTIONS.find((candidate) => candidate.name === name);
  if (record === undefined && !isKernelFlag(name)) {
    if (isMeaningless(name)) return;
    throw usage(name, 'unknown mount option', "see 'qcow2fs --help'");
  }
  const wanted = record?.value;
  const missing = value === undefined ? record?.optional !== true : value === '';
  if (wanted !== undefined && missing) throw usage(name, 'needs a value', `${name}=${wanted}`);
  if (wanted === undefined && value !== undefined) throw usage(name, 'takes no value', value);
  // A Map keeps the place of a name's first use: the order says which of two flags wins.
  settings.delete(name);
  settings.set(name, value ?? true);
}

/** A whole number within limits. */
export function integerOption(
  settings: MountSettings,
  name: string,
  least: number,
  most: number,
  radix = 10,
): number | undefined {
  const text = settings.get(name);
  if (text === undefined) return undefined;
  const digits = radix === 8 ? /^[0-7]+$/ : /^[0-9]+$/;
  const number = digits.test(String(text)) ? Number.parseInt(String(text), radix) : Number.NaN;
  if (!(number >= least && number <= most)) {
    const show = (value: number) => value.toString(radix);
    throw usage(name, `not a number: '${text}'`, `${show(least)} to ${show(most)}`);
  }
  return number;
}

/** A number of bytes: `4096`, `512K`, `32M`, `1G`. */
export function sizeOption(
  settings: MountSettings,
  name: string,
  least: number,
  most: number,
): number | undefined {
  const text = settings.get(name);
  if (text === undefined) return undefined;
  const match = /^([0-9]+)([KMG]?)$/i.exec(String(text));
  const unit = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[match?.[2]?.toUpperCase() ?? ''];
  const size = match === null ? Number.NaN : Number(match[1]) * unit!;
  if (!(size >= least && size <= most)) {
    throw usage(name, `not a size: '${text}'`, `${least} to ${most} bytes`);
  }
  return size;
}

/** One of some words; the first of them where the option is not given. */
export function choiceOption<T extends string>(
  settings: MountSettings,
  name: string,
  choices: readonly [T, ...T[]],
): T {
  const text = settings.get(name);
  if (text === undefined) return choices[0];
  const choice = choices.find((candidate) => candidate === text);
  if (choice === undefined) throw usage(name, `unknown word '${text}'`, choices.join(', '));
  return choice;
}

/** Whether the image is to be written to: of `ro` and `rw`, the one that stands last decides. */
export function wantsWriting(settings: MountSettings): boolean {
  return [...settings.keys()].findLast((name) => name === 'ro' || name === 'rw') === 'rw';
}

export function textOption(settings: MountSettings, name: string): string | undefined {
  const value = settings.get(name);
  return value === true ? undefined : value;
}

function splitCommas(text: string): string[] {
  const words = text.match(WORDS) ?? [];
  return words.map((word) => word.replace(/\\(.)/g, '$1'));
}

export function usage(name: string, problem: string, limit: string): ImageError {
  return new ImageError('invalid', 'EINVAL', `option '${name}': ${problem}`, { limit });
}
