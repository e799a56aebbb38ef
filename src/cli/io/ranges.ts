/** Ranges of bytes in a command's words. */
import { Complaint } from './complaint.js';
import { MOST_BYTES, parseNumber } from './words.js';

const SECTOR_SIZE = 512;

export interface Range {
  readonly offset: number;
  readonly length: number;
}

/** An offset and the lengths of the pieces that are read or written there in one request. */
export function parseVector([first, ...lengths]: readonly string[]): Range {
  const offset = parseNumber(first!);
  let length = 0;
  for (const word of lengths) {
    const piece = parseNumber(word);
    if (piece > MOST_BYTES) {
      throw new Complaint(`Argument '${word}' exceeds maximum size ${MOST_BYTES}`);
    }
    length += piece;
    if (length > MOST_BYTES) {
      throw new Complaint(`The total number of bytes exceed the maximum size ${MOST_BYTES}`);
    }
  }
  return { offset, length };
}

/** VM state and compressed data are asked for in whole sectors. */
export function refuseUnaligned(offset: number, length: number): void {
  const values = { offset, count: length };
  for (const [name, value] of Object.entries(values)) {
    if (value % SECTOR_SIZE === 0) continue;
    throw new Complaint(`${value} is not a sector-aligned value for '${name}'`);
  }
}
