/** Which layers of a chain hold a part of its disk. */
import type { Disk } from '../image/disk.js';
import { EXTENT, Extent } from '../image/extent.js';
import type { OpenDisk } from './open-disk.js';

const extent = new Extent();

/**
 * A run at `offset`, at most `most` long: its length where one of the first `levels` layers decides what
 * is read there; as a negative number where none of them does. Behind its end, a layer reads as zeroes.
 */
export function heldAbove(
  { image, disk }: OpenDisk,
  levels: number,
  offset: number,
  most: number,
): number {
  image.enter();
  try {
    return heldWithin(disk, levels, offset, most);
  } finally {
    image.leave();
  }
}

function heldWithin(disk: Disk, levels: number, offset: number, most: number): number {
  disk.mapping.map(offset, most, extent);
  const { kind, length } = extent;
  if (kind !== EXTENT.UNALLOCATED) return length;
  const below = disk.backing;
  if (levels === 1) return -length;
  if (below === null || offset >= below.size) return length;
  return heldWithin(below, levels - 1, offset, Math.min(length, below.size - offset));
}
