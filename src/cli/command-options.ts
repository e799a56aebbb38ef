/**
 * The options of each command: how they are written, what they mean, and what their values can be. Parsing, help,
 * completion and the manual pages go by this table. Mount options, of `-o`, have their own (`options.ts`).
 */
import { OTHER_FORMATS } from '../image/format.js';
import type { Option } from './getopt.js';

/** What the completion of a value offers: words, names of files, folders or mount points; else nothing. */
export type Takes = 'file' | 'folder' | 'mount' | readonly string[];

export interface CommandOption extends Option {
  /** What its value is called in texts. */
  readonly called?: string;
  readonly takes?: Takes;
  readonly help: string;
  /** Not known to the program that is called as qemu-img: it would take part in how QEMU's are shortened. */
  readonly ours?: true;
}

export const FORMATS: readonly string[] = ['qcow2', 'raw', ...OTHER_FORMATS];
const MADE_FORMATS = ['qcow', 'qcow2', 'qed', 'raw'];
export const LOG_FORMATS = ['text', 'json'] as const;
export const TRANSPORTS = ['auto', 'kernel', 'fuse-native'] as const;
export const CACHES = ['writeback', 'writethrough', 'none', 'directsync', 'unsafe'] as const;

/** An option with a value of that name. */
function valued(
  names: Pick<Option, 'long' | 'short'>,
  called: string,
  help: string,
  takes?: Takes,
): CommandOption {
  return { ...names, value: true, called, help, ...(takes !== undefined && { takes }) };
}

const FORMAT = valued({ short: 'f' }, 'FMT', "the image's format; probed if not given", FORMATS);
const LONG_FORMAT: CommandOption = { ...FORMAT, long: 'format' };
const IMAGE_OPTS: CommandOption = {
  ...{ long: 'image-opts' },
  help: 'images are given as driver=FMT,file.filename=FILE,...',
};
const FORCE_SHARE: CommandOption = {
  ...{ long: 'force-share', short: 'U' },
  help: 'read an image that another process writes to',
};
const OBJECT = valued({ long: 'object' }, 'OBJECT', 'a secret: secret,id=ID,file=FILE');
const OUTPUT = valued({ long: 'output' }, 'FORM', 'how facts are printed: human or json', [
  ...['human', 'json'],
]);
const QUIET: CommandOption = { short: 'q', help: 'print nothing but errors' };
const CACHE = valued({ short: 't' }, 'CACHE', 'how what is written is cached', CACHES);
const SOURCE_CACHE = valued({ short: 'T' }, 'CACHE', 'how what is read is cached', CACHES);
const PROGRESS: CommandOption = {
  ...{ long: 'progress', short: 'p', value: 'optional', called: 'json', takes: ['json'] },
  help: 'show how far it is; --progress=json: for programs, a line of JSON at a time',
};
const BACKING_FORMAT = valued({ short: 'F' }, 'FMT', 'the format of the backing file', FORMATS);
const SECOND_FORMAT = valued({ short: 'F' }, 'FMT', 'the format of the second image', FORMATS);
const MADE_FORMAT = valued({ short: 'O' }, 'FMT', 'the format of what is made (raw)', MADE_FORMATS);
const SNAPSHOT = valued({ short: 'l' }, 'SNAPSHOT', 'this snapshot (name or id), not the disk');
const CREATION = valued({ short: 'o' }, 'OPTIONS', "the image's options; -o help lists them");

/** How qemu-io opens an image: on the command line, and by its `open`. */
export const OPEN_OPTIONS: readonly CommandOption[] = [
  { long: 'read-only', short: 'r', help: 'open it for reading alone' },
  { long: 'snapshot', short: 's', help: 'throw away what is written' },
  { long: 'copy-on-read', short: 'C', help: 'keep in the image what is read from below it' },
  { long: 'nocache', short: 'n', help: 'as -t none' },
  { long: 'force-share', short: 'U', help: 'read it though another process writes to it' },
  { long: 'native-aio', short: 'k', help: 'as -i native' },
  valued({ long: 'aio', short: 'i' }, 'MODE', 'changes nothing', ['threads', 'native', 'io_uring']),
  valued({ long: 'cache', short: 't' }, 'MODE', 'as -t of convert; writethrough', CACHES),
  valued({ long: 'discard', short: 'd' }, 'MODE', 'unmap (the default), or ignore: do nothing', [
    ...['unmap', 'ignore'],
  ]),
];

export const OPTIONS = {
  amend: [
    ...[OBJECT, FORMAT, IMAGE_OPTS, PROGRESS, QUIET, CACHE],
    valued({ short: 'o' }, 'OPTIONS', 'what changes, as compat=0.10; -o help lists it'),
    { long: 'force', help: 'let key slots be lost that nothing else opens' },
  ],
  bitmap: [
    ...[FORMAT, IMAGE_OPTS, OBJECT],
    valued({ short: 'b', long: 'source-file' }, 'FILE', 'the image of the SOURCE bitmap', 'file'),
    valued({ short: 'F', long: 'source-format' }, 'FMT', 'its format', FORMATS),
    valued({ short: 'g', long: 'granularity' }, 'SIZE', 'bytes that one bit stands for'),
    { long: 'add', help: 'make a bitmap' },
    valued({ long: 'merge' }, 'SOURCE', 'add the bits of another bitmap'),
    { long: 'remove', help: 'remove it' },
    { long: 'clear', help: 'clear all of its bits' },
    { long: 'enable', help: 'record writes from now on' },
    { long: 'disable', help: 'record no writes from now on' },
  ],
  check: [
    LONG_FORMAT,
    valued({ long: 'repair', short: 'r' }, 'WHAT', 'repair lost space, or all', ['leaks', 'all']),
    ...[FORCE_SHARE, IMAGE_OPTS, OBJECT, OUTPUT, QUIET, SOURCE_CACHE, PROGRESS],
  ],
  commit: [
    ...[OBJECT, IMAGE_OPTS, QUIET, FORMAT, CACHE, PROGRESS],
    valued({ short: 'b' }, 'BASE', 'into this image, further down in the chain', 'file'),
    valued({ short: 'r' }, 'RATE', 'at most so many bytes a second'),
    { short: 'd', help: 'leave the image as full as it is' },
  ],
  compact: [
    ...[FORMAT, IMAGE_OPTS, OBJECT, CACHE, OUTPUT, PROGRESS, QUIET],
    { long: 'dry-run', short: 'n', help: 'change nothing: tell how much shorter it would become' },
  ],
  compare: [
    ...[FORMAT, SECOND_FORMAT],
    { short: 's', help: 'sizes and what is allocated must be the same, too' },
    ...[SOURCE_CACHE, PROGRESS, QUIET, FORCE_SHARE, IMAGE_OPTS, OBJECT],
  ],
  completion: [],
  convert: [
    ...[FORMAT, IMAGE_OPTS, FORCE_SHARE, OBJECT, PROGRESS, QUIET, CACHE, SOURCE_CACHE, MADE_FORMAT],
    valued({ short: 'B' }, 'FILE', 'the backing file of what is made', 'file'),
    ...[BACKING_FORMAT, CREATION, SNAPSHOT],
    valued({ short: 'S' }, 'SIZE', 'zeroes of this length become holes (4k)'),
    valued({ short: 'm' }, 'N', 'pieces in work at a time (8)'),
    valued({ short: 'r' }, 'RATE', 'at most so many bytes a second'),
    { short: 'c', help: 'compress' },
    { short: 'n', help: 'write to an image that is there' },
    // Ranges are laid out in order all the same, which costs nothing.
    { short: 'W', help: 'accepted: pieces may be written in any order' },
    { short: 'C', help: 'let the kernel copy, where it can' },
    { long: 'target-image-opts', help: 'the target is given as driver=FMT,...' },
    { long: 'target-is-zero', help: 'the target reads as zeroes already (with -n)' },
    { long: 'salvage', help: 'put zeroes where something cannot be read' },
    { long: 'bitmaps', help: 'copy persistent bitmaps, too' },
    { long: 'skip-broken-bitmaps', help: 'but those that are inconsistent' },
  ],
  create: [
    ...[FORMAT, OBJECT, QUIET, PROGRESS],
    valued({ short: 'b' }, 'FILE', 'the backing file', 'file'),
    ...[BACKING_FORMAT, CREATION],
    { short: 'u', help: 'do not look at the backing file' },
  ],
  dd: [FORMAT, IMAGE_OPTS, FORCE_SHARE, OBJECT, PROGRESS, MADE_FORMAT],
  diff: [
    ...[FORMAT, SECOND_FORMAT],
    valued({ short: 'l' }, 'SNAPSHOT', 'from this snapshot; given twice: to that one'),
    { long: 'metadata', help: 'compare tables alone, and read no data' },
    ...[OUTPUT, PROGRESS, FORCE_SHARE, IMAGE_OPTS, OBJECT],
  ],
  doctor: [OUTPUT],
  info: [
    ...[LONG_FORMAT, IMAGE_OPTS, FORCE_SHARE, OBJECT, OUTPUT],
    { long: 'backing-chain', help: 'tell of the images below it, too' },
    { long: 'no-backing', help: 'refuse images that name another file', ours: true },
    {
      ...valued({ long: 'backing-root' }, 'DIR', 'open only files in DIR that it names', 'folder'),
      ours: true,
    },
  ],
  'install-helpers': [
    valued({ long: 'prefix' }, 'DIR', 'into DIR/sbin, not /sbin', 'folder'),
    { long: 'remove', help: 'remove them' },
  ],
  io: [
    ...OPEN_OPTIONS,
    valued({ long: 'cmd', short: 'c' }, 'COMMAND', 'a command; -c help lists them'),
    LONG_FORMAT,
    { long: 'misalign', short: 'm', help: 'changes nothing' },
    valued({ long: 'trace', short: 'T' }, 'PATTERN', 'no events are known'),
    ...[OBJECT, IMAGE_OPTS],
  ],
  man: [],
  map: [
    ...[LONG_FORMAT, IMAGE_OPTS, FORCE_SHARE, OBJECT, OUTPUT],
    valued({ long: 'start-offset', short: 's' }, 'OFFSET', 'from this byte of the disk on'),
    valued({ long: 'max-length', short: 'l' }, 'SIZE', 'so many bytes at most'),
    { long: 'draw', help: 'draw it, by layers and kinds, in blocks of characters', ours: true },
    { ...valued({ long: 'html' }, 'FILE', 'draw it on a page for browsers', 'file'), ours: true },
  ],
  measure: [
    ...[FORMAT, IMAGE_OPTS, FORCE_SHARE, OBJECT, OUTPUT, MADE_FORMAT, CREATION, SNAPSHOT],
    valued({ long: 'size' }, 'SIZE', 'of a disk of this size, which is empty'),
  ],
  mount: [
    valued({ short: 'o' }, 'OPTIONS', 'mount options, with commas between them'),
    OBJECT,
    { short: 'f', long: 'foreground', help: 'do not become a daemon' },
    { short: 'd', long: 'debug', help: 'trace every request; stays in the foreground' },
    { short: 'v', long: 'verbose', help: 'tell of what is opened and closed, too' },
  ],
  rebase: [
    ...[OBJECT, IMAGE_OPTS, FORCE_SHARE, QUIET, FORMAT, CACHE, SOURCE_CACHE, PROGRESS],
    valued({ short: 'b' }, 'FILE', 'the new backing file; "": none', 'file'),
    BACKING_FORMAT,
    { short: 'u', help: 'change the name alone' },
    { short: 'c', help: 'compress what is taken over' },
  ],
  resize: [
    ...[OBJECT, FORMAT, IMAGE_OPTS, QUIET, PROGRESS],
    valued({ long: 'preallocation' }, 'MODE', 'space for what is new', [
      ...['off', 'metadata', 'falloc', 'full'],
    ]),
    { long: 'shrink', help: 'the disk may become smaller' },
  ],
  snapshot: [
    valued({ short: 'a' }, 'SNAPSHOT', 'make the disk what it was then'),
    valued({ short: 'c' }, 'NAME', 'take one'),
    valued({ short: 'd' }, 'SNAPSHOT', 'delete it'),
    { short: 'l', help: 'list them' },
    valued({ long: 'vmstate' }, 'FILE', 'with -c: keep the bytes of FILE as its VM state', 'file'),
    ...[FORCE_SHARE, IMAGE_OPTS, OBJECT, QUIET],
  ],
  status: [
    OUTPUT,
    {
      ...{ long: 'watch', value: 'optional', called: 'SECONDS' },
      help: 'go on telling, every 2 seconds or so many; rates are of that time',
    },
  ],
  umount: [{ short: 'l', long: 'lazy', help: 'although it is in use' }],
} satisfies Readonly<Record<string, readonly CommandOption[]>>;
