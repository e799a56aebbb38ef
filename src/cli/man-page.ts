/** The manual page qcow2fs(1), in the language of man(7), from the tables of commands and options. */
import type { Command } from './command.js';
import { optionWords } from './option-lines.js';
import { MOUNT_OPTIONS } from './options.js';

const EXAMPLES: readonly (readonly [command: string, meaning: string])[] = [
  ['qcow2fs disk.qcow2 mnt', 'Mounts an image, to be read.'],
  ['qcow2fs disk.qcow2 mnt -o rw', 'Mounts it to be written to.'],
  ['qcow2fs umount mnt', 'Unmounts it, and waits until the image is released.'],
  ['qcow2fs convert -O qcow2 disk.raw disk.qcow2', 'Makes a qcow2 image of a raw one.'],
  ['qcow2fs check -r all disk.qcow2', 'Repairs an image.'],
];

export function manualPage(commands: readonly Command[]): string {
  const lines = [
    '.TH QCOW2FS 1 "2026-11-26" "qcow2fs" "User Commands"',
    '.SH NAME',
    'qcow2fs \\- mount qcow2 images as flat raw files, and work on them',
    '.SH SYNOPSIS',
    ...synopsis('IMAGE MOUNTPOINT [-o OPTION[,OPTION...]]'),
    '.br',
    ...synopsis('COMMAND [OPTION...]'),
    '.SH DESCRIPTION',
    'Shows a qcow2 image, and every snapshot in it, as flat raw files. MOUNTPOINT is a folder, or a',
    'regular file, over which the raw disk is then mounted. The commands work on images that are not',
    'mounted, by the words of',
    '.BR qemu\\-img (1).',
    'Called by a link named qemu\\-img or qemu\\-io, the program takes their words and speaks as they do.',
    '.SH COMMANDS',
    ...commands.flatMap(commandSection),
    '.SH MOUNT OPTIONS',
    'In \\-o, or as long flags (\\-\\-cache\\-size=64M). Those of',
    '.BR mount (8)',
    'as nosuid, nodev, noexec and noatime are passed to the kernel.',
    ...MOUNT_OPTIONS.flatMap(({ name, value, optional, help }) => {
      const given = value === undefined ? '' : optional === true ? `[=${value}]` : `=${value}`;
      return item(`${name}${given}`, help);
    }),
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
    '.BR mount (8)',
  ];
  return `${lines.join('\n')}\n`;
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

/** A term, and behind it what it means. */
function item(term: string, meaning: string): string[] {
  return ['.TP', `.B ${escapeText(term)}`, escapeText(meaning)];
}

/** As it stands there: no requests, no escapes, and signs that can be copied from the page. */
function escapeText(text: string): string {
  const plain = text
    .replace(/…/g, '...')
    .replace(/\\/g, '\\e')
    .replace(/-/g, '\\-')
    .replace(/`/g, '\\(ga')
    .replace(/"/g, '\\(dq')
    .replace(/'/g, '\\(aq')
    .replace(/\^/g, '\\(ha')
    .replace(/~/g, '\\(ti');
  return /^[.']/.test(plain) ? `\\&${plain}` : plain;
}
