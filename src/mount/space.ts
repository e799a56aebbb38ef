/**
 * What a file of the tree takes on the host. Programs take `st_blocks` of 0 for a promise that the
 * file is one hole (GNU tar reads nothing of it then), so 0 is answered only where it is one.
 */
import { isExpected } from '../errors.js';
import type { Disk } from '../image/disk.js';
import { SECTOR_SIZE } from '../image/extent.js';
import type { Content, Origin } from './content.js';

/** Looks at the map that one stat may take; beyond, the space is not counted but bounded. */
const SPACE_BUDGET = 4096;
/** What is answered for data that takes nothing of its own: one page. */
const FEWEST_BLOCKS = 8;

/** The image as its host sees it. */
export interface ImageSpace {
  /** Units of 512 bytes; null where the host cannot tell: on block devices. */
  readonly imageBlocks: number | null;
  /** Whether holes of the file are all that it leaves out. */
  readonly isRaw: boolean;
}

/** `st_blocks`: counted where that is cheap, else the most that it can be. */
export function blocksOf(content: Content, origin: Origin, image: ImageSpace): number {
  const { disk, start = 0, partition, snapshot } = origin;
  const { imageBlocks, isRaw } = image;
  if (disk === undefined) return Math.ceil(content.size / SECTOR_SIZE);
  const end = start + content.size;
  const most = Math.min(content.size, (imageBlocks ?? Infinity) * SECTOR_SIZE);
  // The disk takes what its image takes: no map is read for it, however large it is.
  const whole = partition === undefined && snapshot === undefined && imageBlocks !== null;
  const held = whole ? most : heldWithin(disk, start, end, isRaw);
  // Compressed clusters take less than they hold.
  const blocks = Math.ceil(Math.min(held ?? most, most) / SECTOR_SIZE);
  if (blocks > 0) return blocks;
  const counted = !whole && held === 0 && disk.backing === null;
  return counted || isHole(disk, start, end) ? 0 : FEWEST_BLOCKS;
}

/** Bytes that the image itself holds of [start, end); undefined where nobody can tell cheaply. */
function heldWithin(disk: Disk, start: number, end: number, isRaw: boolean): number | undefined {
  try {
    return isRaw
      ? dataWithin(disk, start, end, SPACE_BUDGET)
      : disk.allocatedWithin(start, end, SPACE_BUDGET);
  } catch (error) {
    if (!isExpected(error)) throw error;
    return undefined;
  }
}

/** Bytes of [start, end) that are no holes; undefined where finding out takes more than `budget`. */
function dataWithin(disk: Disk, start: number, end: number, budget: number): number | undefined {
  let held = 0;
  for (let at = start; at < end; ) {
    if (budget-- === 0) return undefined;
    const data = disk.seek(at, false, end);
    at = disk.seek(data, true, end);
    held += at - data;
  }
  return held;
}

/** Whether all of [start, end) is known to be a hole over the whole chain. */
function isHole(disk: Disk, start: number, end: number): boolean {
  try {
    return disk.seek(start, false, end) === end;
  } catch (error) {
    if (!isExpected(error)) throw error;
    return false;
  }
}
