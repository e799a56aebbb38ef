/** `--help`, from the tables of commands and options. */
import type { Command } from './command.js';
import { COMMANDS } from './commands.js';
import { mountOptionWords, optionLines } from './option-lines.js';
import { MOUNT_OPTIONS } from './options.js';
import { programName } from './program.js';

const COLUMN = 24;

export function helpText(): string {
  return `${(programName() === 'qcow2fs' ? ourHelp() : imageHelp()).join('\n')}\n`;
}

function ourHelp(): string[] {
  return [
    'Usage: qcow2fs IMAGE|FOLDER… MOUNTPOINT [-o OPTION[,OPTION…]]',
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
    'Exit status: 0 if all went well, 1 if not, with the reason on standard error; 128 and the signal,',
    'where one ended it. Those of check and compare are told by their own help.',
    'Colours, where there are any, are left out where NO_COLOR is set.',
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

/** `COMMAND --help`: its usage, what it does, its options and exit statuses. */
export function commandHelp({ name, usage, summary, options, statuses }: Command): string {
  const known = options.filter(({ ours }) => programName() === 'qcow2fs' || ours !== true);
  const lines = [
    ...[`Usage: ${programName()} ${usage}`, `    ${summary}`],
    ...(known.length === 0 ? [] : ['', 'Options:', ...optionLines(known)]),
    ...(name === 'mount' ? ['', ...mountOptions()] : []),
    ...(statuses === undefined ? [] : ['', ...statusLines(statuses)]),
  ];
  return `${lines.join('\n')}\n`;
}

function statusLines(statuses: NonNullable<Command['statuses']>): string[] {
  const all = Object.entries({ 0: 'all is well', 1: 'it failed', ...statuses });
  return ['Exit status:', ...all.map(([status, meaning]) => `  ${status.padEnd(4)}${meaning}`)];
}

function mountOptions(): string[] {
  const options = MOUNT_OPTIONS.map(
    (option) => `  ${mountOptionWords(option).padEnd(COLUMN)}${option.help}`,
  );
  return [
    'Mount options, in -o or as long flags (--cache-size=64M):',
    ...options,
    '  nosuid, nodev, noexec, noatime and the like are passed to the kernel.',
  ];
}
