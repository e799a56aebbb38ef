/** Sizes, times and columns as QEMU's tools print them for people. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'] as const;

/**
 * A size in bytes with a binary unit, as C's `%0.3g` prints it: `1.12 MiB`. From 1000 on the next
 * unit is taken, so that `1000 KiB` is `0.977 MiB`.
 */
export function formatSize(size: number): string {
  // QEMU's own floating-point expression: the bound of a unit is 1000 of the one below.
  const scaled = size / (1000 / 1024);
  let unit = 0;
  while (unit < UNITS.length - 1 && scaled >= 2 ** (10 * (unit + 1))) unit++;
  const divisor = 2 ** (10 * unit);
  return `${threeDigits(size, divisor)} ${UNITS[unit]}`;
}

/** `size / divisor`, 0 or at least 0.1 and below 1024, in three digits, halves to even as C does. */
function threeDigits(size: number, divisor: number): string {
  const value = size / divisor;
  const decimals = value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 3;
  const power = 10n ** BigInt(decimals);
  // Exact, where floating point could make a half of what is none.
  const numerator = BigInt(size) * power;
  const denominator = BigInt(divisor);
  let rounded = numerator / denominator;
  const twice = (numerator % denominator) * 2n;
  if (twice > denominator || (twice === denominator && rounded % 2n === 1n)) rounded++;
  const shown = Number(rounded) / Number(power);
  return shown >= 1000 ? '1e+03' : String(shown);
}

/** Seconds since 1970 as local date and time. */
export function formatDate(seconds: number): string {
  const date = new Date(seconds * 1000);
  const day = [date.getFullYear(), date.getMonth() + 1, date.getDate()].map(twoDigits).join('-');
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map(twoDigits).join(':');
  return `${day} ${time}`;
}

/** A virtual machine's clock, in nanoseconds, as hours, minutes, seconds and milliseconds. */
export function formatClock(nanoseconds: bigint): string {
  const milliseconds = nanoseconds / 1_000_000n;
  const seconds = Number(milliseconds / 1000n);
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const fraction = String(milliseconds % 1000n).padStart(3, '0');
  return `${parts.map(twoDigits).join(':')}.${fraction}`;
}

function twoDigits(value: number): string {
  return String(value).padStart(2, '0');
}

/** Fills up with spaces behind the text; the width counts bytes, as C's `%-*s` does. */
export function padRight(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - Buffer.byteLength(text)));
}

/** Fills up with spaces before the text, as `%*s`. */
export function padLeft(text: string, width: number): string {
  return ' '.repeat(Math.max(0, width - Buffer.byteLength(text))) + text;
}
