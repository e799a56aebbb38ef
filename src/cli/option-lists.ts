/** `-o` of the commands that make or change images: lists of options, which may be given again. */
import { ImageError } from '../errors.js';
import { parseKeyValues } from './key-values.js';

/** What all the lists say, in order. Throws where a list begins or ends with a comma, or is empty. */
export function optionPairs(lists: readonly string[]): [key: string, value: string | undefined][] {
  for (const list of lists) {
    // Two commas are one of a value; no value begins a list.
    const trailing = /,*$/.exec(list)![0].length;
    if (list !== '' && !list.startsWith(',') && trailing % 2 === 0) continue;
    throw new ImageError('invalid', 'EINVAL', `Invalid option list: ${list}`);
  }
  return lists.flatMap((list) => parseKeyValues(list));
}

/** Whether help is asked for instead. */
export function asksForHelp(
  pairs: readonly (readonly [key: string, value: string | undefined])[],
): boolean {
  return pairs.some(([key, value]) => value === undefined && (key === 'help' || key === '?'));
}
