/** What pictures of a disk call the kinds of its bytes. */
import type { ImageDescription } from '../image/description.js';
import type { Content, DiskLayout, Kind } from '../tools/disk-layout.js';

const NAMES: Readonly<Record<Content, string>> = {
  data: 'data',
  shared: 'data, shared with snapshots',
  compressed: 'compressed data',
  reserved: 'set aside, reads as zeroes',
  zero: 'zeroes',
  unallocated: 'unallocated',
};

/** The order in which they are told, within a layer. */
const ORDER: readonly Content[] = [
  ...(['data', 'shared', 'compressed', 'reserved', 'zero', 'unallocated'] as const),
];

/** `description`: of the chain, whose layers are named where there are several. */
export function kindName({ content, depth }: Kind, { layers }: ImageDescription): string {
  const name = NAMES[content];
  if (content === 'unallocated' || layers.length === 1) return name;
  return depth === 0 ? `${name}: the image` : `${name}: backing file ${depth}`;
}

/** The indexes of a layout's kinds, as they are to be told: by layers from the top, what is nowhere last. */
export function kindOrder({ kinds }: Pick<DiskLayout, 'kinds'>): number[] {
  const rank = ({ content, depth }: Kind): number =>
    (content === 'unallocated' ? kinds.length : depth) * ORDER.length + ORDER.indexOf(content);
  return kinds.map((_, index) => index).sort((a, b) => rank(kinds[a]!) - rank(kinds[b]!));
}

/** A part of a whole, as `12.3 %`. */
export function percent(part: number, whole: number): string {
  if (whole === 0) return '0 %';
  const value = (part / whole) * 100;
  if (value > 0 && value < 0.1) return '<0.1 %';
  return `${value >= 99.95 || value === 0 ? value.toFixed(0) : value.toFixed(1)} %`;
}
