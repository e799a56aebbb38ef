/**
 * What is in `disk.bitmaps`: a file of JSON for each persistent bitmap of the image, with what it says is
 * dirty now. They are neither made nor deleted as long as the image is mounted.
 */
import { LRUCache } from 'lru-cache';
import type { AttachedImage } from '../image/attach.js';
import { BITMAP_FLAG, type Bitmap } from '../image/qcow2/bitmaps.js';
import type { DirtySource } from '../image/qcow2/stored-bitmap.js';
import { BytesContent, type Content } from './content.js';
import { type Entry, fileEntry } from './entry.js';
import { snapshotFileNames } from './names.js';
import { LAST_BITMAP, nodeId, SLOT } from './node.js';

const SUFFIX = '.json';
/** Extents that are told at most: where there are more, they are told in larger units. */
const MOST_EXTENTS = 250_000;
/** Texts that a thread keeps. */
const TEXTS_KEPT = 4;

interface Text {
  /** What the disk was when it was made. */
  readonly size: number;
  readonly version: number;
  readonly content: BytesContent;
}

interface Extent {
  readonly start: number;
  readonly length: number;
}

export class BitmapFolder {
  readonly #image: AttachedImage;
  readonly #bitmaps: readonly Bitmap[];
  readonly #names: readonly string[];
  readonly #texts = new LRUCache<number, Text>({ max: TEXTS_KEPT });

  constructor(image: AttachedImage) {
    const [top] = image.description.layers;
    this.#image = image;
    this.#bitmaps = top.format === 'qcow2' ? top.bitmaps.slice(0, LAST_BITMAP) : [];
    const named = this.#bitmaps.map(({ name }, index) => ({ name, id: String(index + 1) }));
    this.#names = snapshotFileNames(named);
  }

  get isEmpty(): boolean {
    return this.#bitmaps.length === 0;
  }

  /** The bitmap whose file has that slot. */
  bitmap(slot: number): Bitmap | undefined {
    return this.#bitmaps[slot - SLOT.BITMAP - 1];
  }

  /** The number that a node of that name has. */
  find(name: string): number | undefined {
    if (!name.endsWith(SUFFIX)) return undefined;
    const index = this.#names.indexOf(name.slice(0, -SUFFIX.length));
    return index < 0 ? undefined : nodeId(0, SLOT.BITMAP + index + 1);
  }

  *list(from: number): Generator<Entry> {
    for (let index = from; index < this.#names.length; index++) {
      const id = nodeId(0, SLOT.BITMAP + index + 1);
      yield fileEntry(`${this.#names[index]!}${SUFFIX}`, id, index + 1);
    }
  }

  /** The text of the file with that slot, as it is now. */
  content(slot: number): Content {
    const bitmap = this.bitmap(slot)!;
    const dirty = this.#image.dirtyOf(bitmap);
    const { size } = this.#image.disk;
    const version = dirty?.version ?? 0;
    const known = this.#texts.get(slot);
    if (known !== undefined && known.size === size && known.version === version) {
      return known.content;
    }
    const text = bitmapText(bitmap, size, dirty === null ? null : dirty.sources);
    const content = new BytesContent(Buffer.from(text));
    this.#texts.set(slot, { size, version, content });
    return content;
  }
}

/** One extent a line, as `qemu-img map` prints them. No `dirty` where the bits cannot be used. */
function bitmapText(
  { name, granularity, flags }: Bitmap,
  size: number,
  sources: readonly DirtySource[] | null,
): string {
  const facts = { name, granularity, flags: flagNames(flags), 'virtual-size': size };
  const start = JSON.stringify(facts).slice(0, -1);
  if (sources === null) return `${start}}\n`;
  let unit = granularity;
  let extents = dirtyExtents(sources, size, unit);
  while (extents === null) {
    unit *= 2;
    extents = dirtyExtents(sources, size, unit);
  }
  const lines = extents.map((extent) => JSON.stringify(extent));
  const list = lines.length === 0 ? '[]' : `[\n${lines.join(',\n')}\n]`;
  return `${start},"unit":${unit},"dirty":${list}}\n`;
}

export function flagNames(flags: number): string[] {
  const names: string[] = [];
  if ((flags & BITMAP_FLAG.IN_USE) !== 0) names.push('in-use');
  if ((flags & BITMAP_FLAG.AUTO) !== 0) names.push('auto');
  return names;
}

/** What any of the sources says is dirty, in whole units; null where that is too many extents. */
function dirtyExtents(
  sources: readonly DirtySource[],
  size: number,
  unit: number,
): Extent[] | null {
  const extents: Extent[] = [];
  for (const source of sources) {
    let from = -1;
    let to = -1;
    const end = () => from >= 0 && extents.push({ start: from, length: Math.min(to, size) - from });
    source.forEachDirty(0, size, (start, stop) => {
      if (extents.length > MOST_EXTENTS) return;
      const first = start - (start % unit);
      if (first > to) {
        end();
        from = first;
      }
      to = Math.ceil(stop / unit) * unit;
    });
    end();
    if (extents.length > MOST_EXTENTS) return null;
  }
  return sources.length > 1 ? united(extents) : extents;
}

function united(extents: Extent[]): Extent[] {
  const merged: { start: number; length: number }[] = [];
  for (const { start, length } of extents.sort((a, b) => a.start - b.start)) {
    const last = merged.at(-1);
    const lastEnd = last === undefined ? -1 : last.start + last.length;
    if (start > lastEnd) merged.push({ start, length });
    else last!.length = Math.max(lastEnd, start + length) - last!.start;
  }
  return merged;
}
