/** Runs of bits in bytes, the least significant bit of a byte first: as qcow2 stores bitmaps. */

/** Sets the bits from `from` up to `to`. */
export function setBits(bytes: Uint8Array, from: number, to: number): void {
  let at = from;
  for (; at < to && (at & 7) !== 0; at++) bytes[at >>> 3]! |= 1 << (at & 7);
  const whole = Math.floor((to - at) / 8);
  if (whole > 0) {
    const first = at / 8;
    bytes.fill(0xff, first, first + whole);
    at += whole * 8;
  }
  for (; at < to; at++) bytes[at >>> 3]! |= 1 << (at & 7);
}

/** Calls `visit` for each run of set bits among those from `from` up to `to`: [start, end). */
export function forEachRun(
  bytes: Uint8Array,
  from: number,
  to: number,
  visit: (start: number, end: number) => void,
): void {
  let start = -1;
  for (let at = from; at < to; ) {
    const byte = bytes[Math.floor(at / 8)]!;
    // A byte at a time where all of its bits say the same.
    if (at % 8 === 0 && to - at >= 8 && byte === (start < 0 ? 0 : 0xff)) {
      at += 8;
      continue;
    }
    const isSet = ((byte >> (at % 8)) & 1) === 1;
    if (isSet && start < 0) start = at;
    else if (!isSet && start >= 0) {
      visit(start, at);
      start = -1;
    }
    at++;
  }
  if (start >= 0) visit(start, to);
}
