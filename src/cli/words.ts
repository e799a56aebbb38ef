/** Parsing of command words, with minimist: unknown options are errors, never ignored. */
import minimist from 'minimist';
import { ImageError } from '../errors.js';

export interface WordsSpec {
  readonly flags?: readonly string[];
  readonly values?: readonly string[];
  /** Long names for short ones. */
  readonly alias?: Readonly<Record<string, string>>;
  /** How many words there must be besides the options. */
  readonly operands: readonly string[];
  /** There may be more. */
  readonly more?: boolean;
}

export interface Words {
  readonly operands: string[];
  flag(name: string): boolean;
  /** All values given, in order. */
  values(name: string): string[];
}

/** Parses; `usage` is shown in errors. */
export function parseWords(words: string[], spec: WordsSpec, usage: string): Words {
  const fail = (problem: string): never => {
    throw new ImageError('invalid', 'EINVAL', problem, { limit: `usage: qcow2fs ${usage}` });
  };
  for (const word of optionWords(words)) checkLongOption(word, spec, fail);
  const parsed = minimist(prepared(words, spec), {
    boolean: [...(spec.flags ?? [])],
    string: ['_', ...(spec.values ?? [])],
    alias: { ...spec.alias },
    unknown: (word) =>
      word.startsWith('-') && word !== '-' ? fail(`unknown option '${word}'`) : true,
  });
  const operands = parsed._.map(String);
  const missing = spec.operands[operands.length];
  if (missing !== undefined) fail(`${missing} is missing`);
  const extra = operands[spec.operands.length];
  if (extra !== undefined && spec.more !== true) fail(`unexpected '${extra}'`);
  const listOf = (name: string): string[] => {
    const value: unknown = parsed[name];
    return value === undefined ? [] : Array.isArray(value) ? value.map(String) : [String(value)];
  };
  for (const name of spec.values ?? []) {
    if (listOf(name).includes('')) fail(`option '--${name}' needs a value`);
  }
  return { operands, flag: (name) => parsed[name] === true, values: listOf };
}

/** minimist reads meanings into `--no-x`, `--flag=value` and names of Object's own properties. */
function checkLongOption(word: string, spec: WordsSpec, fail: (problem: string) => never): void {
  const [, name, value] = /^--([^=]+)(=.*)?$/s.exec(word) ?? [];
  if (name === undefined) return;
  const { flags = [], values = [] } = spec;
  if (!flags.includes(name) && !values.includes(name)) fail(`unknown option '--${name}'`);
  if (flags.includes(name) && value !== undefined) fail(`option '--${name}' takes no value`);
}

/** The words that can be options: those before `--`. */
function optionWords(words: readonly string[]): readonly string[] {
  const end = words.indexOf('--');
  return end < 0 ? words : words.slice(0, end);
}

/** Words as minimist understands them rightly. */
function prepared(words: readonly string[], spec: WordsSpec): string[] {
  const options = optionWords(words);
  const detached = options.flatMap((word) => detachValue(word, spec));
  return [...detached.map((word) => keepNegative(word, spec)), ...words.slice(options.length)];
}

/** minimist takes `--no-x` for the flag `x` set to false; ours are flags of that very name. */
function keepNegative(word: string, { flags = [] }: WordsSpec): string {
  return word.startsWith('--no-') && flags.includes(word.slice(2)) ? `${word}=true` : word;
}

/** `-oro` is `-o ro`, and `-foro` is `-f -o ro`: minimist takes them for flags. */
function detachValue(word: string, { alias = {}, values = [] }: WordsSpec): string[] {
  if (!/^-[^-]/.test(word)) return [word];
  for (let at = 1; at < word.length - 1 && word[at + 1] !== '='; at++) {
    const name = alias[word[at]!] ?? word[at]!;
    if (!values.includes(name)) continue;
    return [...(at > 1 ? [word.slice(0, at)] : []), `--${name}=${word.slice(at + 1)}`];
  }
  return [word];
}
