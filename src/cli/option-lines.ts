/** Options in words: as they are written, with their values, and what they do. */
import type { CommandOption } from './command-options.js';
import type { OptionRecord } from './options.js';

const COLUMN = 26;

/** `-f` and `--format`. */
export function optionNames({ short, long }: CommandOption): string[] {
  return [
    ...(short === undefined ? [] : [`-${short}`]),
    ...(long === undefined ? [] : [`--${long}`]),
  ];
}

/** `-f, --format FMT`, `--progress[=json]`. */
export function optionWords(option: CommandOption): string {
  const { long, value, called = 'VALUE' } = option;
  const names = optionNames(option).join(', ');
  if (value === undefined) return names;
  if (value === 'optional') return `${names}[=${called}]`;
  return `${names}${long === undefined ? ' ' : '='}${called}`;
}

/** A mount option as it stands in `-o`: `rw`, `format=FMT`, `overlay[=FILE]`. */
export function mountOptionWords({ name, value, optional }: OptionRecord): string {
  if (value === undefined) return name;
  return optional === true ? `${name}[=${value}]` : `${name}=${value}`;
}

/** A line of help for each. */
export function optionLines(options: readonly CommandOption[]): string[] {
  return options.map((option) => {
    const words = optionWords(option);
    const indent = option.short === undefined ? '      ' : '  ';
    return `${`${indent}${words}`.padEnd(COLUMN + 2)}  ${option.help}`;
  });
}
