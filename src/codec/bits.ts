/** Arithmetic on offsets (numbers up to 2^53 - 1, where `<<` and `|` would cut to 32 bits). */

export const TWO_32 = 0x1_0000_0000;

/** `value` rounded down to a multiple of `unit`, a power of two. */
export function alignDown(value: number, unit: number): number {
  return value - (value % unit);
}

/** `value` rounded up to a multiple of `unit`, a power of two. */
export function alignUp(value: number, unit: number): number {
  const rest = value % unit;
  return rest === 0 ? value : value + unit - rest;
}

/** The same beyond 2^53. */
export function alignUpExact(value: bigint, unit: number): bigint {
  const exact = BigInt(unit);
  return ((value + exact - 1n) / exact) * exact;
}

export function isAligned(value: number, unit: number): boolean {
  return value % unit === 0;
}

export function divCeil(value: number, unit: number): number {
  return Math.ceil(value / unit);
}

/** How many bits of `mask`, from bit `start` up and below bit 32, equal bit `start`. */
export function runOfBits(mask: number, start: number): number {
  const shifted = mask >>> start;
  // Ones at the low end of `shifted` become zeroes, so that the run is always one of zeroes.
  const flipped = (shifted & 1) === 1 ? ~shifted : shifted;
  const masked = start === 0 ? flipped | 0 : flipped & ((1 << (32 - start)) - 1);
  return masked === 0 ? 32 - start : 31 - Math.clz32(masked & -masked);
}
