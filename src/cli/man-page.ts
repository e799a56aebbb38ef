/** The manual pages qcow2fs(1) and mount.qcow2fs(8), from the tables of commands and options. */
import type { Command } from './command.js';
import { mountOptionWords, optionWords } from './option-lines.js';
import { MOUNT_OPTIONS } from './options.js';
import { escapeText, item } from './roff.js';

const DATE = '2026-11-26';

const EXAMPLES: readonly (readonly [command: string, meaning: string])[] = [
  ['qcow2fs disk.qcow2 mnt', 'Mounts an image, to be read.'],
  ['qcow2fs disk.qcow2 mnt -o rw', 'Mounts it to be written to.'],
  ['qcow2fs umount mnt', 'Unmounts it, and waits until the image is released.'],
  ['qcow2fs convert -O qcow2 disk.raw disk.qcow2', 'Makes a qcow2 image of a raw one.'],
  ['qcow2fs check -r all disk.qcow2', 'Repairs an image.'],
];

export function manualPage(commands: readonly Command[]): string {
  const lines = [
    `.TH QCOW2FS 1 "${DATE}" "qcow2fs" "User Commands"`,
    '.SH NAME',
    'qcow2fs \\- mount qcow2 images as flat raw files, and work on them',
    '.SH SYNOPSIS',
    ...synopsis('IMAGE|FOLDER... MOUNTPOINT [-o OPTION[,OPTION...]]'),
    '.br',
    ...synopsis('COMMAND [OPTION...]'),
    '.SH DESCRIPTION',
    'Shows a qcow2 image, and every snapshot in it, as flat raw files. MOUNTPOINT is a folder, or a',
    'regular file, over which the raw disk is then mounted. Of a folder, or several images, each image is',
    'shown as a folder. The commands work on images that are not',
    'mounted, by the words of',
    '.BR qemu\\-img (1).',
    'Called by a link named qemu\\-img or qemu\\-io, the program takes their words and speaks as they do.',
    '.SH COMMANDS',
    ...commands.flatMap(commandSection),
    '.SH MOUNT OPTIONS',
    'In \\-o, or as long flags (\\-\\-cache\\-size=64M). Those of',
    '.BR mount (8)',
    'as nosuid, nodev, noexec and noatime are passed to the kernel.',
    ...mountOptions(),
    '.SH EXIT STATUS',
    ...item('0', 'all went well'),
    ...item('1', 'it failed; the reason is on standard error'),
    ...item('128+N', 'the signal N ended it'),
    'Some commands have others, which stand there.',
    '.SH ENVIRONMENT',
    ...item('NO_COLOR', 'where it is set and not empty, nothing is printed in colour'),
    ...item('TMPDIR', 'where temporary files are made (/tmp)'),
    ...item('NOTIFY_SOCKET', 'where systemd is told that a mount is ready'),
    '.SH EXAMPLES',
    ...EXAMPLES.flatMap(([command, meaning]) => item(command, meaning)),
    '.SH SEE ALSO',
    '.BR qemu\\-img (1),',
    '.BR fusermount3 (1),',
    '.BR mount.qcow2fs (8),',
    '.BR mount (8)',
  ];
  return `${lines.join('\n')}\n`;
}

/** Of the helper that mount(8) runs, which takes the same mount options. */
export function mountHelperPage(): string {
  const lines = [
    `.TH MOUNT.QCOW2FS 8 "${DATE}" "qcow2fs" "System Administration"`,
    '.SH NAME',
    'mount.qcow2fs, umount.qcow2fs \\- mount qcow2 images by mount(8) and fstab(5)',
    '.SH SYNOPSIS',
    '.B mount \\-t qcow2fs',
    escapeText('IMAGE|FOLDER MOUNTPOINT [-o OPTION[,OPTION...]]'),
    '.br',
    '.B umount',
    'MOUNTPOINT',
    '.SH DESCRIPTION',
    'The helpers that',
    '.BR mount (8)',
    'and',
    '.BR umount (8)',
    'run for the types qcow2fs and fuse.qcow2fs. They are links to',
    '.BR qcow2fs (1),',
    'made in /sbin by',
    '.BR "qcow2fs install\\-helpers" ,',
    'and removed by its \\-\\-remove. The first returns when the mount answers, the other when',
    'all is written and the image is released. Remounting is refused.',
    '.SH OPTIONS',
    'Words of fstab that are for others (noauto, user, nofail, x\\-systemd.* and the like) are ignored.',
    ...mountOptions(),
    '.SH FILES',
    ...item('/etc/fstab', 'as: /srv/disk.qcow2 /mnt/disk qcow2fs rw,noauto,nofail 0 0'),
    '.SH SEE ALSO',
    '.BR qcow2fs (1),',
    '.BR fstab (5),',
    '.BR mount (8)',
  ];
  return `${lines.join('\n')}\n`;
}

function mountOptions(): string[] {
  return MOUNT_OPTIONS.flatMap((option) => item(mountOptionWords(option), option.help));
}

function synopsis(words: string): string[] {
  return ['.B qcow2fs', escapeText(words)];
}

function commandSection({ name, usage, summary, options, statuses }: Command): string[] {
  return [
    `.SS ${name}`,
    ...synopsis(usage),
    '.PP',
    escapeText(`${summary[0]!.toUpperCase()}${summary.slice(1)}.`),
    ...options.flatMap((option) => item(optionWords(option), option.help)),
    ...(statuses === undefined ? [] : ['.PP', 'Exit statuses, beside 0 for success:']),
    ...Object.entries(statuses ?? {}).flatMap(([status, meaning]) => item(status, meaning)),
  ];
}
