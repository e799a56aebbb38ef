/**
 * Sectors that say where they belong and when they were written, so that old bytes and bytes from
 * another place are told apart. They compress well, and no part of one passes for a whole one.
 */
export const SECTOR_SIZE = 512;

/** Generation of a sector that is all zeroes. */
export const ZEROES = 0;
/** Generation of a sector that is neither zeroes nor one written for its place. */
export const FOREIGN = -1;

/** The generation of all sectors of a VM state that has so many. */
export function vmStateGeneration(sectors: number): number {
  return 1_000_000 + sectors;
}

const MAGIC = 0x51c2_f59d;
const WORDS = SECTOR_SIZE / 4;

/** Bytes for `count` sectors from sector `first` on, of one generation (from 1). */
export function markSectors(first: number, count: number, generation: number): Buffer {
  const bytes = Buffer.from(new ArrayBuffer(count * SECTOR_SIZE));
  const words = new Uint32Array(bytes.buffer, 0, count * WORDS);
  for (let n = 0; n < count; n++) {
    if (generation === ZEROES) continue;
    const sector = first + n;
    for (let at = n * WORDS; at < (n + 1) * WORDS; at += 4) {
      words[at] = MAGIC;
      words[at + 1] = sector;
      words[at + 2] = generation;
      words[at + 3] = sector ^ generation ^ MAGIC;
    }
  }
  return bytes;
}

/** The generation of each sector of `bytes` (aligned to 4), whose first is the disk's `first`. */
export function readMarks(bytes: Buffer, first = 0): Int32Array {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
  const generations = new Int32Array(bytes.length / SECTOR_SIZE);
  for (let n = 0; n < generations.length; n++) {
    generations[n] = generationOf(words, n * WORDS, first + n);
  }
  return generations;
}

function generationOf(words: Uint32Array, start: number, sector: number): number {
  const end = start + WORDS;
  if (words[start] === 0) {
    for (let at = start; at < end; at++) if (words[at] !== 0) return FOREIGN;
    return ZEROES;
  }
  const generation = words[start + 2]!;
  const check = (sector ^ generation ^ MAGIC) >>> 0;
  for (let at = start; at < end; at += 4) {
    const right =
      words[at] === MAGIC &&
      words[at + 1] === sector &&
      words[at + 2] === generation &&
      words[at + 3] === check;
    if (!right) return FOREIGN;
  }
  return generation;
}

/** What a foreign sector seems to be. */
export function describeSector(bytes: Buffer): string {
  const [magic, sector, generation] = [0, 4, 8].map((at) => bytes.readUInt32LE(at));
  if (magic !== MAGIC) return `bytes ${bytes.toString('hex', 0, 16)}…`;
  return `sector ${sector} of generation ${generation}`;
}
