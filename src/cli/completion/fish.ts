/** The completion script of fish. */
import type { Command } from '../command.js';
import type { CommandOption, Takes } from '../command-options.js';
import { isWords, LIST_MOUNTS, MOUNT, mountWords, optionsOf, quote } from './words.js';

export function fishCompletion(commands: readonly Command[]): string {
  return `${[
    '# fish completion of qcow2fs: qcow2fs completion fish > ~/.config/fish/completions/qcow2fs.fish',
    'function __qcow2fs_command',
    '    set -l words (commandline -opc)',
    `    if contains -- "$words[2]" ${commands.map(({ name }) => name).join(' ')}`,
    '        test "$words[2]" = "$argv[1]"',
    '    else',
    `        test (count $words) -gt 1 -a "$argv[1]" = ${MOUNT}`,
    '    end',
    'end',
    'function __qcow2fs_list',
    "    set -l before (commandline -ct | string replace -r '[^,]*$' '' | string replace -r '^-o' '')",
    `    for word in ${mountWords().join(' ')}`,
    '        echo $before$word',
    '    end',
    'end',
    ...commands.flatMap(commandLines),
  ].join('\n')}\n`;
}

function commandLines(command: Command): string[] {
  const { name, summary, operands } = command;
  const inside = `complete -c qcow2fs -n '__qcow2fs_command ${name}'`;
  const offered = argumentsOf(operands);
  return [
    `complete -c qcow2fs -n '__fish_is_nth_token 1' -a ${name} -d ${quote(summary)}`,
    ...(offered === undefined ? [] : [`${inside} -f -a ${offered}`]),
    ...optionsOf(command).map((option) => `${inside} ${optionOf(option, name)}`),
    `${inside} -s h -l help -d 'this command in words'`,
  ];
}

function optionOf(option: CommandOption, command: string): string {
  const { short, long, value, takes, help } = option;
  const list = command === MOUNT && short === 'o' ? `'(__qcow2fs_list)'` : undefined;
  const offered = list ?? argumentsOf(takes);
  // fish takes no value for optional ones from the next word.
  const needs = value === true ? (takes === 'file' ? '-r -F' : '-x') : '';
  return [
    ...(short === undefined ? [] : [`-s ${short}`]),
    ...(long === undefined ? [] : [`-l ${long}`]),
    ...(needs === '' ? [] : [needs]),
    ...(offered === undefined || value === undefined ? [] : [`-a ${offered}`]),
    `-d ${quote(help)}`,
  ].join(' ');
}

/** Undefined where files are offered, or nothing is known. */
function argumentsOf(takes: Takes | undefined): string | undefined {
  if (isWords(takes)) return quote(takes.join(' '));
  if (takes === 'mount') return quote(`(${LIST_MOUNTS})`);
  return takes === 'folder' ? quote('(__fish_complete_directories)') : undefined;
}
