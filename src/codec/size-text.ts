/** Sizes in words, in all of QEMU's notations: `1.5G`, `64k`, `0x10000`, `512b`. */

const UNITS = 'bkmgtpe';
const INTEGER = /^[\t\n\v\f\r ]*\+?([0-9]+)(\.[0-9]*)?([bkmgtpe]?)$/i;
/** `b` and `e` are digits here. */
const HEXADECIMAL = /^[\t\n\v\f\r ]*\+?0x([0-9a-f]+)([kmgtp]?)$/i;
const LIMIT = 1n << 64n;

/**
 * The number of bytes that a text says; `unit` is meant where it names none. 'invalid' where it is
 * none, 'range' from 2^64 on. Above 2^53 it is the nearest number that there is.
 */
export function parseSize(text: string, unit: 'B' | 'M' = 'B'): number | 'invalid' | 'range' {
  const size = parseExactSize(text, unit);
  return typeof size === 'bigint' ? Number(size) : size;
}

/** The same, exact. */
export function parseExactSize(text: string, unit: 'B' | 'M' = 'B'): bigint | 'invalid' | 'range' {
  const [, digits, letter = ''] = HEXADECIMAL.exec(text) ?? [];
  const size =
    digits === undefined ? decimal(text, unit) : BigInt(`0x${digits}`) * factorOf(letter || 'b');
  if (size === undefined) return 'invalid';
  if (size >= LIMIT) return 'range';
  return size;
}

function factorOf(letter: string): bigint {
  return 1n << BigInt(10 * UNITS.indexOf(letter.toLowerCase()));
}

function decimal(text: string, unit: 'B' | 'M'): bigint | undefined {
  const [, whole, fraction = '', letter = ''] = INTEGER.exec(text) ?? [];
  if (whole === undefined) return undefined;
  const name = letter === '' ? unit : letter;
  const factor = factorOf(name);
  const hasFraction = /[1-9]/.test(fraction);
  if (hasFraction && factor === 1n) return undefined;
  const part = hasFraction ? BigInt(Math.round(Number(`0${fraction}`) * Number(factor))) : 0n;
  return BigInt(whole) * factor + part;
}
