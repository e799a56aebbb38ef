/** The descriptor: lines of text that say what the disk is made of, and over which other one it lies. */
import { ImageError, invalid } from '../../errors.js';
import type { Storage } from '../../storage/storage.js';
import { SECTOR_SIZE } from '../extent.js';
import { readUpTo } from '../read-bytes.js';

/** Bytes of a descriptor that is a file of its own. */
export const MAX_DESCRIPTOR = (1 << 20) - 1;
/** Bytes of one in a sparse image. */
export const EMBEDDED_SIZE = 20 * SECTOR_SIZE;

/** Of several files. */
const CREATE_TYPES = [
  'monolithicFlat',
  'vmfs',
  'vmfsSparse',
  'seSparse',
  'twoGbMaxExtentSparse',
  'twoGbMaxExtentFlat',
];
const EXTENT_TYPES = ['FLAT', 'VMFS', 'SPARSE', 'VMFSSPARSE', 'SESPARSE'] as const;
/** Of a disk: each is an open file. */
const MAX_EXTENTS = 2048;
const MAX_NAME = 511;
const MAX_PARENT_NAME = 1023;
/** Sectors of a disk that bytes can count. */
const MAX_SECTORS = Number.MAX_SAFE_INTEGER / SECTOR_SIZE;

export type ExtentType = (typeof EXTENT_TYPES)[number];

/** A line that says where a part of the disk is. */
export interface ExtentLine {
  readonly type: ExtentType;
  readonly sectors: number;
  readonly name: string;
  /** Where it begins in a flat file, in sectors. */
  readonly start: number;
}

export interface Identity {
  readonly cid: number;
  readonly parentCid: number;
  /** The name of the disk below; null where there is none. */
  readonly parent: string | null;
}

/** The text at byte `position`, up to its first NUL. */
export function readText(storage: Storage, position: number, length: number): string {
  const text = readUpTo(storage, position, length).bytes.toString('utf8');
  const end = text.indexOf('\0');
  return end < 0 ? text : text.slice(0, end);
}

/** Throws where the text has no content IDs, or a name that is none. */
export function identityIn(text: string): Identity {
  const [cid, parentCid] = [idIn(text, 'CID'), idIn(text, 'parentCID')];
  const parent = lineValue(text, 'parentFileNameHint') ?? '';
  if (Buffer.byteLength(parent) > MAX_PARENT_NAME) {
    throw invalid(`the name of the parent is longer than ${MAX_PARENT_NAME} bytes`);
  }
  return { cid, parentCid, parent: parent === '' ? null : parent };
}

function idIn(text: string, key: string): number {
  const id = Number.parseInt(lineValue(text, key) ?? '', 16);
  if (!(id >= 0 && id <= 0xffff_ffff)) throw invalid('invalid VMDK image descriptor');
  return id;
}

/** The kind of an image of several files. Throws where it is none of those that are known. */
export function createTypeIn(text: string): string {
  const type = lineValue(text, 'createType');
  if (type === undefined) throw invalid('invalid VMDK image descriptor');
  if (CREATE_TYPES.includes(type)) return type;
  throw new ImageError('unsupported', 'ENOTSUP', `Unsupported image type '${type}'`, {
    limit: `supported: monolithicSparse, streamOptimized, ${CREATE_TYPES.join(', ')}`,
  });
}

/** The lines of the extents, in the disk's order: at least one. */
export function extentLines(text: string): ExtentLine[] {
  const lines: ExtentLine[] = [];
  for (const line of text.split('\n')) {
    const extent = extentLine(line.replace(/\r$/, ''));
    if (extent === null) continue;
    if (lines.length === MAX_EXTENTS) {
      throw new ImageError('unsupported', 'EFBIG', 'VMDK image of too many extents', {
        limit: `at most ${MAX_EXTENTS}`,
      });
    }
    lines.push(extent);
  }
  if (lines.length === 0) throw invalid('VMDK descriptor names no extent');
  return lines;
}

/** Null of a line that is about something else. */
function extentLine(line: string): ExtentLine | null {
  const [, access, size] = /^\s*(RW|RDONLY|NOACCESS)\s+(-?\d+)\s/.exec(line) ?? [];
  if (size === undefined) return null;
  // QEMU passes over these, and all that follows lies at the wrong place.
  if (access !== 'RW') throw unsupported(line, `access ${access}`, 'supported: RW');
  const [, word, name, offset] = /^\s*RW\s+-?\d+\s+(\S+)\s+"([^"]+)"\s*(-?\d+)?/.exec(line) ?? [];
  const type = EXTENT_TYPES.find((known) => known === word);
  if (type === undefined || name === undefined) {
    const stated = /^\s*RW\s+-?\d+\s+(\S+)/.exec(line)?.[1] ?? '';
    if (EXTENT_TYPES.some((known) => known === stated)) throw wrong(line);
    throw unsupported(line, `type ${stated}`, `supported: ${EXTENT_TYPES.join(', ')}`);
  }
  const sectors = Number(size);
  if (sectors <= 0 || sectors > MAX_SECTORS || Buffer.byteLength(name) > MAX_NAME)
    throw wrong(line);
  const start = Number(offset ?? 0);
  if (type === 'FLAT') {
    if (offset === undefined || start < 0 || start > MAX_SECTORS) throw wrong(line);
  } else if (offset !== undefined) throw wrong(line);
  return { type, sectors, name, start };
}

function wrong(line: string): ImageError {
  return invalid(`Invalid extent line: ${line}`);
}

function unsupported(line: string, what: string, limit: string): ImageError {
  const message = `VMDK extents of ${what} are not supported: ${line}`;
  return new ImageError('unsupported', 'ENOTSUP', message, { limit });
}

/** The value of a line `key=value`, without its quotes. */
function lineValue(text: string, key: string): string | undefined {
  for (const line of text.split('\n')) {
    const at = line.indexOf('=');
    if (at < 0 || line.slice(0, at).trim() !== key) continue;
    const value = line.slice(at + 1).trim();
    return /^"[^"]*"$/.test(value) ? value.slice(1, -1) : value;
  }
  return undefined;
}
