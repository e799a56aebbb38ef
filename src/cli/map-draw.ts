/** `map --draw`: a disk as blocks of characters, coloured where the terminal has colours. */
import type { ImageDescription } from '../image/description.js';
import { printable } from '../sys/log.js';
import type { Cell, Content, DiskLayout, Kind } from '../tools/disk-layout.js';
import { hasColours } from './colour.js';
import { formatSize, padLeft, padRight } from './human.js';
import { kindName, kindOrder, percent } from './layout-words.js';

const ROWS = 16;
const WIDTH = 80;
const LEAST_WIDTH = 20;
/** Room for the offset at the beginning of each line. */
const MARGIN = 11;

/** How many cells a picture has: as many as fit the terminal. */
export function pictureCells(): number {
  return pictureWidth() * ROWS;
}

function pictureWidth(): number {
  const given = process.stdout.columns ?? Number(process.env.COLUMNS ?? WIDTH);
  const width = Number.isInteger(given) && given >= LEAST_WIDTH ? given : WIDTH;
  return width - MARGIN;
}

/** Colours of the 256, by depth: the image itself, backing files below it in turn. */
const DATA = [33, 35, 208, 170, 179, 37] as const;
const COLOURS: Readonly<Record<Exclude<Content, 'data'>, number>> = {
  ...{ shared: 220, compressed: 141, reserved: 109, zero: 244, unallocated: 238 },
};

/** What is drawn for a kind, with and without colours. */
function look({ content, depth }: Kind): { character: string; colour: number } {
  if (content === 'data') {
    const character = hasColours() || depth === 0 ? '█' : String(depth % 10);
    return { character, colour: DATA[depth % DATA.length]! };
  }
  const characters = { shared: '▓', compressed: 'c', reserved: '-', zero: '0', unallocated: '·' };
  return { character: characters[content], colour: COLOURS[content] };
}

function painted(text: string, colour: number): string {
  return hasColours() ? `\x1b[38;5;${colour}m${text}\x1b[0m` : text;
}

export function* drawing(layout: DiskLayout, description: ImageDescription): Generator<string> {
  const width = pictureWidth();
  const { start, end } = layout;
  const cells = columnsOf(layout, width * ROWS);
  const each = cells.length === 0 ? 0 : (end - start) / cells.length;
  const [top] = description.layers;
  yield `${printable(top.file.path)}: ${formatSize(end - start)}, ${formatSize(Math.ceil(each))} a character\n`;
  for (let at = 0; at < cells.length; at += width) {
    yield `${padLeft(shortSize(start + at * each), MARGIN - 1)} `;
    yield runsOf(cells.slice(at, at + width), layout.kinds);
    yield '\n';
  }
  yield '\n';
  for (const index of kindOrder(layout)) {
    const { character, colour } = look(layout.kinds[index]!);
    const { bytes } = layout.totals[index]!;
    const size = padLeft(formatSize(bytes), 10);
    const part = padLeft(percent(bytes, end - start), 8);
    const name = padRight(kindName(layout.kinds[index]!, description), 36);
    yield `${painted(character, colour)} ${name}${size}${part}\n`;
  }
}

function shortSize(offset: number): string {
  return offset === 0 ? '0' : formatSize(offset);
}

/** For each character of the picture the kind to be seen there: of those that are something, what has most. */
function columnsOf({ cells, kinds, start, end }: DiskLayout, most: number): number[] {
  const count = Math.min(most, Math.ceil((end - start) / 512));
  const bytes = Array.from({ length: count }, () => new Float64Array(kinds.length));
  const each = (end - start) / count;
  for (const cell of cells) spread(cell, start, each, bytes);
  return bytes.map((shares) => {
    let best = -1;
    for (const [index, amount] of shares.entries()) {
      if (amount === 0) continue;
      const isMore =
        best < 0 || weight(kinds[index]!, amount) > weight(kinds[best]!, shares[best]!);
      if (isMore) best = index;
    }
    return Math.max(0, best);
  });
}

/** Little data in much that is nothing is to be seen all the same. */
function weight({ content }: Kind, bytes: number): number {
  if (content === 'unallocated') return bytes * 1e-12;
  return content === 'zero' || content === 'reserved' ? bytes * 1e-6 : bytes;
}

/** The cell's bytes, spread evenly over what it covers of the picture. */
function spread(cell: Cell, start: number, each: number, bytes: readonly Float64Array[]): void {
  const from = (cell.start - start) / each;
  const to = from + cell.length / each;
  for (let at = Math.floor(from); at < Math.min(Math.ceil(to), bytes.length); at++) {
    const part = (Math.min(to, at + 1) - Math.max(from, at)) / (to - from);
    for (const [kind, amount] of cell.shares) bytes[at]![kind]! += amount * part;
  }
}

/** Neighbours of one kind are coloured together. */
function runsOf(line: readonly number[], kinds: readonly Kind[]): string {
  let text = '';
  for (let at = 0; at < line.length; ) {
    let end = at + 1;
    while (end < line.length && line[end] === line[at]) end++;
    const { character, colour } = look(kinds[line[at]!]!);
    text += painted(character.repeat(end - at), colour);
    at = end;
  }
  return text;
}
