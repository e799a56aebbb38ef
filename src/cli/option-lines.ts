/** Options in words: as they are written, with their values, and what they do. */
import type { CommandOption } from './command-options.js';

const COLUMN = 26;

/** `-f, --format FMT`, `--progress[=json]`. */
export function optionWords({ short, long, value, called = 'VALUE' }: CommandOption): string {
  const names = [
    ...(short === undefined ? [] : [`-${short}`]),
    ...(long === undefined ? [] : [`--${long}`]),
  ].join(', ');
  if (value === undefined) return names;
  if (value === 'optional') return `${names}[=${called}]`;
  return `${names}${long === undefined ? ' ' : '='}${called}`;
}

/** A line of help for each. */
export function optionLines(options: readonly CommandOption[]): string[] {
  return options.map((option) => {
    const words = optionWords(option);
    const indent = option.short === undefined ? '      ' : '  ';
    return `${`${indent}${words}`.padEnd(COLUMN + 2)}  ${option.help}`;
  });
}
