/**
 * The sorted table of commands: it drives dispatch, help, completion and the manual pages. Modules load only when
 * they are run.
 */

import type { Command } from './command.js';
import { OPTIONS } from './command-options.js';

export const COMMANDS: readonly Command[] = [
  {
    name: 'amend',
    usage:
      'amend [--object OBJECT] [--image-opts] [-p] [-q] [-f FMT] [-t CACHE] [--force] ' +
      '-o OPTION[,OPTION…] IMAGE',
    summary: "change an image's version, features, refcounts or size; -o help lists what can be",
    options: OPTIONS.amend,
    image: true,
    run: async (words) => (await import('./amend-command.js')).runAmendCommand(words),
  },
  {
    name: 'bitmap',
    usage:
      'bitmap (--merge SOURCE | --add | --remove | --clear | --enable | --disable)... ' +
      '[-b SOURCE_FILE [-F FMT]] [-g GRANULARITY] [--object OBJECT] [--image-opts | -f FMT] IMAGE NAME',
    summary: "change an image's persistent bitmaps, as qemu-img bitmap does",
    options: OPTIONS.bitmap,
    image: true,
    run: async (words) => (await import('./bitmap-command.js')).runBitmapCommand(words),
  },
  {
    name: 'check',
    usage:
      'check [-f FMT] [--image-opts] [--output=human|json] [-r leaks|all] [-T CACHE] [-q] [-U] ' +
      'IMAGE',
    summary: 'look for errors and lost space in an image; -r: repair it',
    options: OPTIONS.check,
    statuses: {
      1: 'the check could not be done',
      2: 'there are errors',
      3: 'there is lost space, and nothing worse',
      63: 'the format cannot be checked',
    },
    image: true,
    run: async (words) => (await import('./check-command.js')).runCheckCommand(words),
  },
  {
    name: 'commit',
    usage: 'commit [-f FMT | --image-opts] [-t CACHE] [-b BASE] [-r RATE] [-d] [-p] [-q] IMAGE',
    summary: 'move what an image holds into its backing file, as qemu-img commit does',
    options: OPTIONS.commit,
    image: true,
    run: async (words) => (await import('./commit-command.js')).runCommitCommand(words),
  },
  {
    name: 'compact',
    usage:
      'compact [-f FMT | --image-opts] [--object OBJECT] [-t CACHE] [-n] [--output=human|json] [-p] ' +
      '[-q] IMAGE',
    summary: 'move what an image holds to its beginning and cut its file; -n: only tell how much',
    options: OPTIONS.compact,
    run: async (words) => (await import('./compact-command.js')).runCompactCommand(words),
  },
  {
    name: 'compare',
    usage: 'compare [-f FMT] [-F FMT] [-s] [-p] [-q] [-T CACHE] [-U] [--image-opts] IMAGE1 IMAGE2',
    summary: 'tell whether two disks hold the same bytes',
    options: OPTIONS.compare,
    statuses: {
      1: 'they differ',
      2: 'one cannot be opened',
      3: 'what is allocated cannot be found out',
      4: 'one cannot be read',
    },
    image: true,
    run: async (words) => (await import('./compare-command.js')).runCompareCommand(words),
  },
  {
    name: 'completion',
    usage: 'completion bash|zsh|fish',
    summary: "print a shell's completion script: source <(qcow2fs completion bash)",
    options: OPTIONS.completion,
    operands: ['bash', 'zsh', 'fish'],
    run: async (words) =>
      (await import('./completion/completion-command.js')).runCompletion(words, COMMANDS),
  },
  {
    name: 'convert',
    usage:
      'convert [-f FMT] [-O FMT] [-c] [-o OPTIONS] [-B FILE -F FMT] [-l SNAPSHOT] [-S SIZE] [-n] ' +
      '[-m N] [-W] [-C] [-r RATE] [-p] [-q] [-t CACHE] [-T CACHE] [-U] [--image-opts] ' +
      '[--target-image-opts] [--target-is-zero] [--salvage] IMAGE… TARGET',
    summary: 'copy a disk, or several behind each other, into another image',
    options: OPTIONS.convert,
    image: true,
    run: async (words) => (await import('./convert-command.js')).runConvertCommand(words),
  },
  {
    name: 'create',
    usage: 'create [-q] [-f FMT] [-b BACKING_FILE [-F FMT]] [-u] [-o OPTIONS] IMAGE [SIZE]',
    summary: 'make an image, as qemu-img create does; -o help lists the options',
    options: OPTIONS.create,
    image: true,
    run: async (words) => (await import('./create-command.js')).runCreateCommand(words),
  },
  {
    name: 'dd',
    usage: 'dd [-f FMT] [-O FMT] [-U] [--image-opts] [bs=SIZE] [count=N] [skip=N] if=IMAGE of=FILE',
    summary: 'copy a part of a disk into a new image, by blocks',
    options: OPTIONS.dd,
    image: true,
    run: async (words) => (await import('./dd-command.js')).runDdCommand(words),
  },
  {
    name: 'diff',
    usage:
      'diff [-f FMT] [-F FMT] [--image-opts] [--object OBJECT] [--output=human|json] [--metadata] ' +
      '[-p] [-U] (-l SNAPSHOT [-l SNAPSHOT] IMAGE | OLDER NEWER)',
    summary: 'list where two disks differ: images of a chain, snapshots, a snapshot and the disk',
    options: OPTIONS.diff,
    run: async (words) => (await import('./diff-command.js')).runDiffCommand(words),
  },
  {
    name: 'doctor',
    usage: 'doctor [--output=human|json]',
    summary: 'tell what this machine lacks for mounting images, and how to get it',
    options: OPTIONS.doctor,
    operands: [],
    statuses: { 1: 'something is missing that mounting needs' },
    run: async (words) => (await import('./doctor-command.js')).runDoctorCommand(words),
  },
  {
    name: 'info',
    usage:
      'info [-f FMT | --image-opts] [--output=human|json] [--backing-chain] [--object OBJECT] [-U] ' +
      '[--no-backing] [--backing-root=DIR] IMAGE',
    summary: "show an image's facts, as qemu-img info does",
    options: OPTIONS.info,
    image: true,
    run: async (words) => (await import('./info-command.js')).runInfoCommand(words),
  },
  {
    name: 'install-helpers',
    usage: 'install-helpers [--prefix=DIR] [--remove]',
    summary: 'let mount(8), umount(8) and /etc/fstab know the type qcow2fs, by links in /sbin',
    options: OPTIONS['install-helpers'],
    operands: [],
    run: async (words) => (await import('./install-helpers-command.js')).runInstallHelpers(words),
  },
  {
    name: 'io',
    usage: 'io [-rsnCU] [-f FMT | --image-opts] [-t CACHE] [-d DISCARD] [-c COMMAND]... [IMAGE]',
    summary: "read and write a disk by qemu-io's commands; `-c help` lists them",
    options: OPTIONS.io,
    run: async (words) => (await import('./io/io-command.js')).runIoCommand(words),
  },
  {
    name: 'man',
    usage: 'man [qcow2fs | mount.qcow2fs]',
    summary: 'print a manual page: qcow2fs man | man -l -',
    options: OPTIONS.man,
    operands: [],
    run: async (words) => (await import('./man-command.js')).runManCommand(words, COMMANDS),
  },
  {
    name: 'map',
    usage:
      'map [-f FMT | --image-opts] [--output=human|json] [--start-offset=OFFSET] ' +
      '[--max-length=SIZE] [--draw | --html=FILE] [--object OBJECT] [-U] FILE',
    options: OPTIONS.map,
    image: true,
    summary: 'show where the parts of a disk lie in files, as qemu-img map does',
    run: async (words) => (await import('./map-command.js')).runMapCommand(words),
  },
  {
    name: 'measure',
    usage:
      'measure [--output=human|json] [-O FMT] [-o OPTIONS] ' +
      '[--size SIZE | [-f FMT | --image-opts] [-l SNAPSHOT] [-U] IMAGE]',
    summary: 'tell how large an image would become',
    options: OPTIONS.measure,
    image: true,
    run: async (words) => (await import('./measure-command.js')).runMeasureCommand(words),
  },
  {
    name: 'mount',
    usage: '[mount] IMAGE|FOLDER… MOUNTPOINT [-o OPTION[,OPTION…]]',
    summary: 'mount an image, or many; the word `mount` may be left out',
    options: OPTIONS.mount,
    run: async (words, usage) => (await import('./mount.js')).runMount(words, usage),
  },
  {
    name: 'rebase',
    usage:
      'rebase [-f FMT | --image-opts] [-t CACHE] [-T CACHE] [-u] [-c] -b BACKING [-F FMT] [-U] [-p] ' +
      '[-q] IMAGE',
    summary: 'give an image another backing file, or none, as qemu-img rebase does',
    options: OPTIONS.rebase,
    image: true,
    run: async (words) => (await import('./rebase-command.js')).runRebaseCommand(words),
  },
  {
    name: 'resize',
    usage:
      'resize [-f FMT | --image-opts] [--preallocation=MODE] [--shrink] [-p] [-q] IMAGE [+|-]SIZE',
    summary: 'make a disk larger or smaller, as qemu-img resize does',
    options: OPTIONS.resize,
    image: true,
    run: async (words) => (await import('./resize-command.js')).runResizeCommand(words),
  },
  {
    name: 'snapshot',
    usage:
      'snapshot [-l | -a SNAPSHOT | -c NAME [--vmstate FILE] | -d NAME] [--image-opts] ' +
      '[--object OBJECT] [-U] [-q] FILE|MOUNTPOINT',
    options: OPTIONS.snapshot,
    image: true,
    summary: "list an image's snapshots, mounted or not; go back to one (-a), create or delete one",
    run: async (words) => {
      return (await import('./snapshot-command.js')).runSnapshotCommand(words);
    },
  },
  {
    name: 'status',
    usage: 'status [--output=human|json] [--watch[=SECONDS]] [MOUNTPOINT]',
    summary: 'tell what mounts do: requests, rates, latencies, cache hits',
    options: OPTIONS.status,
    operands: 'mount',
    statuses: { 1: 'a mount does not answer, or there is none on MOUNTPOINT' },
    run: async (words) => (await import('./status-command.js')).runStatusCommand(words),
  },
  {
    name: 'umount',
    usage: 'umount [-l] MOUNTPOINT',
    summary: 'unmount, and wait until the image is released; -l: although it is in use',
    options: OPTIONS.umount,
    operands: 'mount',
    run: async (words, usage) => {
      return (await import('./umount-command.js')).runUmountCommand(words, usage);
    },
  },
];

export function findCommand(name: string | undefined): Command | undefined {
  return COMMANDS.find((command) => command.name === name);
}
