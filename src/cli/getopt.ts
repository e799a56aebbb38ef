/** Command words as GNU's getopt_long takes them, which QEMU's tools use. */
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { HelpWanted, UsageError } from './program.js';

/** An option has a long name, a short one, or both: the long one, where there is one, is its name. */
export interface Option {
  readonly long?: string;
  readonly short?: string;
  /** It takes a value: in the same word (`-oVALUE`, `--long=VALUE`) or the next one. */
  readonly value?: true | 'optional';
}

const HELP: Option = { long: 'help', short: 'h' };

export interface GivenOption {
  readonly name: string;
  /** Empty where the option takes none. */
  readonly value: string;
}

export interface Arguments {
  readonly operands: readonly string[];
  /** Options in the order of the words. */
  readonly given: readonly GivenOption[];
  has(name: string): boolean;
  /** Whether the command has that option, given or not. */
  knows(name: string): boolean;
  /** The value given last. */
  last(name: string): string | undefined;
  all(name: string): string[];
}

/**
 * Options may stand anywhere before `--`; short ones in one word (`-rq`); long names can be shortened
 * as far as they stay unique. Throws a UsageError, or HelpWanted: every command knows `--help` and `-h`.
 */
export function getopt(words: readonly string[], own: readonly Option[]): Arguments {
  const options = [...own, HELP];
  const known = new Map(options.map((option) => [nameOf(option), option]));
  const given: GivenOption[] = [];
  const operands: string[] = [];
  for (const token of tokens(lengthen(words, options), options)) {
    if (token.kind === 'positional') operands.push(token.value);
    if (token.kind !== 'option') continue;
    const option = known.get(token.name);
    // Names like `toString` are no options: only the table's own are.
    if (option === undefined || refusesValue(option, token.inlineValue)) {
      const before = operands.at(-1) ?? words[token.index - 1];
      throw unrecognized(token, words[token.index]!, before);
    }
    if (option.value === true && token.value === undefined) {
      throw new UsageError(`missing argument for option '${words.at(-1)}'`);
    }
    if (option === HELP) throw new HelpWanted();
    given.push({ name: token.name, value: token.value ?? '' });
  }
  return {
    operands,
    given,
    has: (name) => given.some((option) => option.name === name),
    knows: (name) => known.has(name),
    last: (name) => given.findLast((option) => option.name === name)?.value,
    all: (name) => given.filter((option) => option.name === name).map(({ value }) => value),
  };
}

function nameOf({ long, short }: Option): string {
  return long ?? short!;
}

function refusesValue({ value }: Option, inline: boolean | undefined): boolean {
  return value === undefined && inline === true;
}

/**
 * The word is told, as it stands there. Where more short options follow in it, getopt_long has not left it yet:
 * QEMU's tools tell of what lies `before` it.
 */
function unrecognized({ rawName, name, value }: OptionToken, word: string, before = word) {
  if (rawName.startsWith('--')) {
    const rest = value === undefined ? '' : `=${value}`;
    return new UsageError(`unrecognized option '${rawName}${rest}'`);
  }
  return new UsageError(`unrecognized option '${word.endsWith(name) ? word : before}'`);
}

type Token = NonNullable<ReturnType<typeof parse>['tokens']>[number];
type OptionToken = Extract<Token, { kind: 'option' }>;

function parse(words: readonly string[], options: readonly Option[]) {
  const config: NonNullable<ParseArgsConfig['options']> = {};
  for (const option of options) {
    const type = option.value === true ? 'string' : 'boolean';
    const short = option.short === undefined ? {} : { short: option.short };
    config[nameOf(option)] = { type, ...short };
  }
  const args = [...words];
  return parseArgs({ args, options: config, strict: false, tokens: true, allowPositionals: true });
}

function tokens(words: readonly string[], options: readonly Option[]): Token[] {
  return parse(words, options).tokens;
}

/** Shortened long names are written out: how the words behind them are taken hangs on that. */
function lengthen(words: readonly string[], options: readonly Option[]): readonly string[] {
  const longs = options.flatMap(({ long }) => (long === undefined ? [] : [long]));
  const short = tokens(words, options).find(
    (token) =>
      token.kind === 'option' && token.rawName.startsWith('--') && !longs.includes(token.name),
  );
  if (short?.kind !== 'option') return words;
  const meant = longs.filter((long) => long.startsWith(short.name));
  if (meant.length !== 1) throw unrecognized(short, words[short.index]!);
  const inline = short.inlineValue === true ? `=${short.value}` : '';
  return lengthen(words.with(short.index, `--${meant[0]}${inline}`), options);
}
