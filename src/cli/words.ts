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
  const parsed = minimist(keepNegatives(words, spec.flags ?? []), {
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
  if (extra !== undefined) fail(`unexpected '${extra}'`);
  const listOf = (name: string): string[] => {
    const value: unknown = parsed[name];
    return value === undefined ? [] : Array.isArray(value) ? value.map(String) : [String(value)];
  };
  for (const name of spec.values ?? []) {
    if (listOf(name).includes('')) fail(`option '--${name}' needs a value`);
  }
  return { operands, flag: (name) => parsed[name] === true, values: listOf };
}

/** minimist takes `--no-x` for the flag `x` set to false; ours are flags of that very name. */
function keepNegatives(words: readonly string[], flags: readonly string[]): string[] {
  const end = words.indexOf('--');
  return words.map((word, index) => {
    if (end >= 0 && index > end) return word;
    return word.startsWith('--no-') && flags.includes(word.slice(2)) ? `${word}=true` : word;
  });
}
