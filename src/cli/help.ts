/** `--help`, from the tables of commands and options. */
import { COMMANDS, type Command } from './commands.js';
import { MOUNT_OPTIONS } from './options.js';

const COLUMN = 24;

export function helpText(): string {
  const commands = COMMANDS.flatMap(({ usage, summary }) => [
    `  qcow2fs ${usage}`,
    `      ${summary}`,
  ]);
  return `${[
    'Usage: qcow2fs IMAGE MOUNTPOINT [-o OPTION[,OPTION…]]',
    '',
    'Shows a qcow2 image, and every snapshot in it, as flat raw files. MOUNTPOINT is a folder,',
    'or a regular file, over which the raw disk is then mounted.',
    '',
    'Commands:',
    ...commands,
    '',
    ...mountOptions(),
    '',
    'Others: --help (behind a command, too), --version, --foreground (-f), --debug (-d).',
    'Exit status: 0 if all went well, 1 if not; the reason is on standard error.',
  ].join('\n')}\n`;
}

/** `COMMAND --help`: its usage and what it does. */
export function commandHelp({ name, usage, summary }: Command): string {
  const options = name === 'mount' ? ['', ...mountOptions()] : [];
  return `${[`Usage: qcow2fs ${usage}`, `    ${summary}`, ...options].join('\n')}\n`;
}

function mountOptions(): string[] {
  const options = MOUNT_OPTIONS.map(({ name, value, optional, help }) => {
    const given = optional === true ? `[=${value}]` : `=${value}`;
    const head = value === undefined ? name : `${name}${given}`;
    return `  ${head.padEnd(COLUMN)}${help}`;
  });
  return [
    'Mount options, in -o or as long flags (--cache-size=64M):',
    ...options,
    '  nosuid, nodev, noexec, noatime and the like are passed to the kernel.',
  ];
}
