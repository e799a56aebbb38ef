/** Lists of options in one word, as QEMU writes them: `a=b,c=d`. */

/**
 * Splits `a=b,c=d`; two commas in a value are one of it. The first word may be the value of
 * `impliedKey` alone. A word without a value comes with undefined.
 */
export function parseKeyValues(
  text: string,
  impliedKey?: string,
): [key: string, value: string | undefined][] {
  const pairs: [string, string | undefined][] = [];
  for (let at = 0; at < text.length; ) {
    const key = /^[^=,]*/.exec(text.slice(at))![0];
    const hasValue = text[at + key.length] === '=';
    if (hasValue || (impliedKey !== undefined && pairs.length === 0)) {
      const from = hasValue ? at + key.length + 1 : at;
      const written = /^(?:[^,]|,,)*/.exec(text.slice(from))![0];
      pairs.push([hasValue ? key : impliedKey!, written.replaceAll(',,', ',')]);
      at = from + written.length + 1;
    } else {
      pairs.push([key, undefined]);
      at += key.length + 1;
    }
  }
  return pairs;
}
