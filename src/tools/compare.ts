/** Whether two disks hold the same bytes. */
import { isExpected } from '../errors.js';
import { SECTOR_SIZE } from '../image/extent.js';
import { isZero } from '../image/zeroes.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { type BlockStatus, type Layer, layersOf, statusAt } from './block-status.js';
import type { OpenDisk } from './open-disk.js';
import type { Progress } from './progress.js';

/** Bytes that are read and compared at once. */
const CHUNK_SIZE = 2 << 20;

export interface CompareOptions {
  /** Sizes must be the same, and what is allocated, too. */
  readonly strict: boolean;
  /** Told once, where the disks have different sizes and are the same up to the smaller one. */
  readonly onSizesDiffer: () => void;
  readonly progress: Progress;
}

/** `size` and `status` only where it is strict; `offset`: of the first sector that differs. */
export type Comparison =
  | { readonly kind: 'same' }
  | { readonly kind: 'size' }
  | { readonly kind: 'status' | 'content'; readonly offset: number };

/** Neither bytes nor tables of one of the disks can be read. */
export class CompareError extends Error {
  readonly kind: 'status' | 'read';
  readonly disk: OpenDisk;
  readonly offset: number;

  constructor(kind: 'status' | 'read', disk: OpenDisk, offset: number, cause: unknown) {
    super(`${kind} at ${offset}`, { cause });
    this.kind = kind;
    this.disk = disk;
    this.offset = offset;
  }
}

/** One of the two. */
interface Side {
  readonly disk: OpenDisk;
  readonly layers: readonly Layer[];
  readonly buffer: IoBuffer;
}

/**
 * Compares the disks from their beginning to the first difference. Where one is larger, the rest of it
 * must be zeroes. Throws a CompareError, and Cancelled.
 */
export async function compareDisks(
  first: OpenDisk,
  second: OpenDisk,
  options: CompareOptions,
): Promise<Comparison> {
  const sides = [sideOf(first), sideOf(second)] as const;
  const { progress, strict } = options;
  const [size, whole] = [Math.min(first.size, second.size), Math.max(first.size, second.size)];
  await progress.advance(0);
  if (strict && first.size !== second.size) return { kind: 'size' };
  let offset = 0;
  while (offset < size) {
    const result = compareAt(sides, offset, size - offset, strict);
    if (typeof result !== 'number') return result;
    offset += result;
    await progress.advance(offset / whole);
  }
  if (first.size === second.size) return { kind: 'same' };
  options.onSizesDiffer();
  const larger = first.size > second.size ? sides[0] : sides[1];
  while (offset < whole) {
    const { zero, length } = look(larger, offset, whole - offset);
    const n = zero ? length : Math.min(length, CHUNK_SIZE);
    const found = zero ? -1 : findData(larger, offset, n);
    if (found >= 0) return { kind: 'content', offset: found };
    offset += n;
    await progress.advance(offset / whole);
  }
  return { kind: 'same' };
}

function sideOf(disk: OpenDisk): Side {
  return { disk, layers: layersOf(disk), buffer: new IoBuffer(CHUNK_SIZE) };
}

/** Answers how many bytes from `offset` on are the same, or what differs. */
function compareAt(
  [first, second]: readonly [Side, Side],
  offset: number,
  length: number,
  strict: boolean,
): number | Comparison {
  // To the end of each: in strict mode it counts whether a run reaches that.
  const one = look(first, offset, first.disk.size - offset);
  const other = look(second, offset, second.disk.size - offset);
  if (strict && !alike(first, one, second, other)) return { kind: 'status', offset };
  const n = Math.min(one.length, other.length, length);
  if (one.zero && other.zero) return n;
  const chunk = Math.min(n, CHUNK_SIZE);
  if (one.zero || other.zero) {
    const found = findData(one.zero ? second : first, offset, chunk);
    return found < 0 ? chunk : { kind: 'content', offset: found };
  }
  read(first, offset, chunk);
  read(second, offset, chunk);
  const same = firstDifference(first.buffer, second.buffer, chunk);
  return same === chunk ? chunk : { kind: 'content', offset: offset + same };
}

/** What QEMU holds against each other in strict mode. */
function alike(first: Side, one: BlockStatus, second: Side, other: BlockStatus): boolean {
  return (
    one.present === other.present &&
    one.zero === other.zero &&
    one.data === other.data &&
    (one.offset === null) === (other.offset === null) &&
    reachesEnd(first, one) === reachesEnd(second, other)
  );
}

function reachesEnd({ disk }: Side, { start, length }: BlockStatus): boolean {
  return start + length === disk.size;
}

function look({ disk, layers }: Side, offset: number, length: number): BlockStatus {
  try {
    return statusAt(layers, offset, length);
  } catch (error) {
    if (!isExpected(error)) throw error;
    throw new CompareError('status', disk, offset, error);
  }
}

function read({ disk, buffer }: Side, offset: number, length: number): void {
  try {
    disk.read(offset, length, buffer, 0);
  } catch (error) {
    if (!isExpected(error)) throw error;
    throw new CompareError('read', disk, offset, error);
  }
}

/** The offset of the first sector in the range that is not all zeroes; -1 where there is none. */
function findData(side: Side, offset: number, length: number): number {
  read(side, offset, length);
  if (isZero(side.buffer, 0, length)) return -1;
  for (let at = 0; ; at += SECTOR_SIZE) {
    if (!isZero(side.buffer, at, Math.min(SECTOR_SIZE, length - at))) return offset + at;
  }
}

/** Where the first sector begins that differs; `length` where none does. */
function firstDifference(first: IoBuffer, second: IoBuffer, length: number): number {
  const differs = (at: number, n: number) =>
    first.bytes.compare(second.bytes, at, at + n, at, at + n) !== 0;
  if (!differs(0, length)) return length;
  for (let at = 0; ; at += SECTOR_SIZE) {
    if (differs(at, Math.min(SECTOR_SIZE, length - at))) return at;
  }
}
