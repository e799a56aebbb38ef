/** `--help`, from the tables of commands and options. */
import { COMMANDS, type Command } from './commands.js';
import { MOUNT_OPTIONS } from './options.js';
import { programName } from './program.js';

const COLUMN = 24;

export function helpText(): string {
  return `${(programName() === 'qcow2fs' ? ourHelp() : imageHelp()).join('\n')}\n`;
}

function ourHelp(): string[] {
  return [
    'Usage: qcow2fs IMAGE MOUNTPOINT [-o OPTION[,OPTION…]]',
    '',
    'Shows a qcow2 image, and every snapshot in it, as flat raw files. MOUNTPOINT is a folder,',
    'or a regular file, over which the raw disk is then mounted.',
    '',
    'Commands:',
    ...COMMANDS.flatMap(describe),
    '',
    ...mountOptions(),
    '',
    'Others: --help (behind a command, too), --version, --foreground (-f), --debug (-d).',
    'Exit status: 0 if all went well, 1 if not; the reason is on standard error.',
  ];
}

/** Of what there is when it is called as qemu-img. */
function imageHelp(): string[] {
  const commands = COMMANDS.filter(({ image }) => image === true);
  return [
    `Usage: ${programName()} COMMAND [OPTION…]`,
    '',
    'Commands:',
    ...commands.flatMap(describe),
    '',
    'Others: --help (behind a command, too), --version.',
  ];
}

function describe({ usage, summary }: Command): string[] {
  return [`  ${programName()} ${usage}`, `      ${summary}`];
}

/** `COMMAND --help`: its usage and what it does. */
export function commandHelp({ name, usage, summary }: Command): string {
  const options = name === 'mount' ? ['', ...mountOptions()] : [];
  return `${[`Usage: ${programName()} ${usage}`, `    ${summary}`, ...options].join('\n')}\n`;
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
