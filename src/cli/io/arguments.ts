/** The words of qemu-io and of its commands: GNU's getopt, in the C library's words for mistakes. */
import { type Arguments, getopt, type Option } from '../getopt.js';
import { UsageError } from '../program.js';
import { WrongWords } from './complaint.js';

/** What QEMU says of a word, as the C library does. */
function libraryWords({ message }: UsageError): string {
  const [, problem, word] = /^(.*) '(.*)'$/.exec(message) ?? ['', message, ''];
  if (problem.startsWith('missing argument')) {
    if (!word.startsWith('--')) return `option requires an argument -- '${word.slice(-1)}'`;
    return `option '${word}' requires an argument`;
  }
  return word.startsWith('--') ? message : `invalid option -- '${word.slice(1, 2)}'`;
}

/** `name`: who complains. Throws WrongWords. */
export function takeWords(
  name: string,
  words: readonly string[],
  options: readonly Option[],
): Arguments {
  try {
    return getopt(words, options);
  } catch (error) {
    if (error instanceof UsageError) throw new WrongWords(`${name}: ${libraryWords(error)}`);
    throw error;
  }
}

/** Options of one letter, as getopt(3) has them: `Cl:q`, a colon behind those that take a value. */
export function letters(text: string): Option[] {
  return [...text.matchAll(/(\w)(:?)/g)].map(([, short, colon]) =>
    colon === ':' ? { short: short!, value: true } : { short: short! },
  );
}
