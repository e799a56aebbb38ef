/**
 * Which units of a file may hold metadata, a bit for each, shared by all threads. In files of 2^23 units and
 * more, several share one: where it says yes, the tables themselves are asked.
 */
const BITS = 1 << 23;

export function allocateMetadataMap(): SharedArrayBuffer {
  return new SharedArrayBuffer(BITS / 8);
}

export class MetadataMap {
  readonly #bits: Uint8Array;

  constructor(memory: SharedArrayBuffer) {
    this.#bits = new Uint8Array(memory);
  }

  add(unit: number): void {
    const bit = unit % BITS;
    this.#bits[bit >> 3]! |= 1 << (bit & 7);
  }

  /** `units`: how many the file has. */
  delete(unit: number, units: number): void {
    // Another one may share the bit where the file is that long; then it stays.
    if (units <= BITS) this.#bits[unit >> 3]! &= ~(1 << (unit & 7));
  }

  has(unit: number): boolean {
    const bit = unit % BITS;
    return (this.#bits[bit >> 3]! & (1 << (bit & 7))) !== 0;
  }
}
