/** Numbers, sizes and bytes as qemu-io reads and prints them. */
import { parseSize } from '../../codec/size-text.js';
import { Complaint } from './complaint.js';

/** Bytes that one request can have. */
export const MOST_BYTES = 2 ** 31 - 512;

const UNITS = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'] as const;
const BYTES_PER_LINE = 16;

/** A size or an offset. Throws a Complaint where the text is none. */
export function parseNumber(text: string): number {
  const number = parseSize(text);
  if (number === 'range' || (number !== 'invalid' && number >= 2 ** 63)) {
    throw new Complaint(`Parsing error: argument too large -- ${text}`);
  }
  if (number !== 'invalid') return number;
  throw new Complaint(
    `Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- ${text}`,
  );
}

/** A number as C's strtol reads it, in base 10, 16 or 8; undefined where the text is none. */
export function parseInteger(text: string): number | undefined {
  const match = /^\s*([-+]?)(0x[0-9a-f]+|0[0-7]*|[1-9][0-9]*)$/i.exec(text);
  if (match === null) return undefined;
  const digits = match[2]!;
  const octal = /^0[0-7]+$/.test(digits);
  const number = octal ? Number.parseInt(digits, 8) : Number(digits);
  return match[1] === '-' ? -number : number;
}

/** The byte that a buffer is filled with, or held against. */
export function parsePattern(text: string): number {
  const byte = parseInteger(text);
  if (byte !== undefined && byte >= 0 && byte <= 0xff) return byte;
  throw new Complaint(`${text} is not a valid pattern byte`);
}

/** Up to three decimals, none where all are 0: `1.500 KiB`, `64 KiB`, `512 bytes`. */
export function sizeText(value: number): string {
  let unit = 0;
  while (unit < UNITS.length && value >= 2 ** (10 * (unit + 1))) unit++;
  if (unit === 0) return `${value.toFixed(6).replace(/\.000000$/, '')} bytes`;
  const scaled = threeDecimals(value / 2 ** (10 * unit));
  return `${scaled.replace(/\.000$/, '')} ${UNITS[unit - 1]}`;
}

/** As C rounds: what lies in the middle goes to the even side, and not up. */
function threeDecimals(value: number): string {
  const below = Math.floor(value * 1000);
  const isEven = value * 1000 - below === 0.5 && below % 2 === 0;
  return isEven ? (below / 1000).toFixed(3) : value.toFixed(3);
}

export interface Report {
  /** What was done: `read`, `wrote`. */
  readonly verb: string;
  readonly offset: number;
  readonly length: number;
  readonly seconds: number;
  /** For programs. */
  readonly terse: boolean;
}

/** The lines that follow a request. */
export function reportText({ verb, offset, length, seconds, terse }: Report): string {
  const rate = length / seconds;
  const operations = 1 / seconds;
  if (terse) {
    const time = clockText(seconds);
    return `${length},1,${time},${rate.toFixed(3)},${operations.toFixed(3)}\n`;
  }
  const time = seconds < 60 ? `${secondsText(seconds)} sec` : clockText(seconds);
  return (
    `${verb} ${length}/${length} bytes at offset ${offset}\n` +
    `${sizeText(length)}, 1 ops; ${time} ` +
    `(${sizeText(rate)}/sec and ${operations.toFixed(4)} ops/sec)\n`
  );
}

function secondsText(seconds: number): string {
  const hundredths = Math.floor((seconds % 60) * 100);
  const [whole, part] = [Math.floor(hundredths / 100), hundredths % 100];
  return `${String(whole).padStart(2, '0')}.${String(part).padStart(2, '0')}`;
}

function clockText(seconds: number): string {
  const minutes = String(Math.floor(seconds / 60) % 60).padStart(2, '0');
  return `${Math.floor(seconds / 3600)}:${minutes}:${secondsText(seconds)}`;
}

/** Bytes in hexadecimal and as characters, a line for each 16; `offset`: the first one's. */
export function dumpText(bytes: Buffer, offset: number): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += BYTES_PER_LINE) {
    const line = [...bytes.subarray(at, at + BYTES_PER_LINE)];
    const place = (offset + at).toString(16).padStart(8, '0');
    const hex = line.map((byte) => `${byte.toString(16).padStart(2, '0')} `).join('');
    lines.push(`${place}:  ${hex} ${line.map(character).join('')}\n`);
  }
  return lines.join('');
}

function character(byte: number): string {
  return /^[0-9A-Za-z]$/.test(String.fromCharCode(byte)) ? String.fromCharCode(byte) : '.';
}
