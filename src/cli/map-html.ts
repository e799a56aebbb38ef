/**
 * `map --html`: one page that draws where a disk's data lies. It holds all that it needs, and its policy lets it load
 * nothing and run nothing but its own script: names of files and snapshots come from others.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import type { ImageDescription } from '../image/description.js';
import { layerClusterSize } from '../image/description.js';
import { printable } from '../sys/log.js';
import type { Cell, DiskLayout } from '../tools/disk-layout.js';
import { formatSize } from './human.js';
import { kindName, kindOrder, percent } from './layout-words.js';
import { STYLE } from './map-html-style.js';

/** Runs or cells of a page at most. */
export const PAGE_CELLS = 40_000;

const SCRIPT = new URL('../cli/page/disk-map.js', import.meta.url);

const KEYS =
  'Arrow keys move, + and − zoom, 0 shows the whole disk, Page Up and Page Down go on. With the mouse: double-click, ' +
  'or Ctrl and the wheel, zoom.';

/** A page about the disk, or a part of it. `snapshots`: how many the image has. */
export function mapPage(
  layout: DiskLayout,
  description: ImageDescription,
  snapshots: number,
): string {
  const script = readFileSync(SCRIPT, 'utf8');
  const [top] = description.layers;
  const name = basename(printable(top.file.path));
  const policy = [
    "default-src 'none'",
    `script-src '${hashOf(script)}'`,
    `style-src '${hashOf(STYLE)}'`,
    "base-uri 'none'",
    "form-action 'none'",
  ];
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy.join('; ')}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escaped(name)}: where its data lies</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>${escaped(name)}</h1>
<button id="theme" type="button">Light or dark</button>
</header>
<main>
${factsSection(layout, description, snapshots)}
${mapSection(layout)}
${legendSection(layout, description)}
${orderSection(layout, description)}
${tableSection(layout)}
</main>
<script type="application/json" id="data">${jsonText(pageData(layout, description))}</script>
<script type="module">${script}</script>
</body>
</html>
`;
}

function hashOf(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`;
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** JSON that cannot end the element that it stands in. */
function jsonText(value: unknown): string {
  return JSON.stringify(value).replace(/</g, '\\u003c');
}

function factsSection(
  { start, end, exact, cellSize, partialClusters }: DiskLayout,
  { layers }: ImageDescription,
  snapshots: number,
): string {
  const [top] = layers;
  const clusterSize = layerClusterSize(top);
  const part = start === 0 ? '' : `, from byte ${start} on`;
  const facts: [string, string][] = [
    ['Image', printable(top.file.path)],
    ['Format', top.format],
    ['Drawn', `${formatSize(end - start)}${part}`],
    ...(clusterSize === null
      ? []
      : ([['Clusters', formatSize(clusterSize)]] as [string, string][])),
    ['Snapshots', String(snapshots)],
    ...layers
      .slice(1)
      .map(({ file, format }, index): [string, string] => [
        `Backing file ${index + 1}`,
        `${printable(file.path)} (${format})`,
      ]),
    ['Detail', exact ? 'every run of bytes' : `parts of ${formatSize(cellSize!)}`],
  ];
  if (partialClusters > 0) facts.push(['Clusters filled in part', String(partialClusters)]);
  const rows = facts.map(([label, value]) => `<dt>${label}</dt><dd>${escaped(value)}</dd>`);
  return `<dl class="facts">${rows.join('')}</dl>`;
}

function mapSection({ start, end }: DiskLayout): string {
  const empty = start === end ? '<p>The disk is empty.</p>' : '';
  return `<section aria-labelledby="map-title">
<h2 id="map-title">The disk</h2>${empty}
<div class="bar"><button id="in" type="button">Zoom in</button><button id="out" type="button">Zoom out</button>
<button id="all" type="button">Whole disk</button><span id="range"></span></div>
<canvas id="overview" role="img" aria-label="The whole disk in one line, with a frame around what is shown below"></canvas>
<canvas id="map" tabindex="0" role="application" aria-label="The disk in boxes, in the order of its bytes; the totals are in the table of kinds" aria-describedby="keys"></canvas>
<p id="details" role="status" aria-live="polite">Point at a box to see what lies there.</p>
<p id="keys" class="note">${KEYS}</p>
</section>`;
}

function legendSection(layout: DiskLayout, description: ImageDescription): string {
  const { start, end, totals, kinds } = layout;
  const rows = kindOrder(layout).map((index, position) => {
    const { bytes, runs } = totals[index]!;
    const name = kindName(kinds[index]!, description);
    const label = `<label><input type="checkbox" checked data-kind="${position}"><span class="swatch" data-kind="${position}"></span>${name}</label>`;
    const cells = [formatSize(bytes), percent(bytes, end - start), String(runs)];
    return `<tr><th scope="row">${label}</th>${cells.map((cell) => `<td>${cell}</td>`).join('')}</tr>`;
  });
  return `<section aria-labelledby="legend-title">
<h2 id="legend-title">What there is</h2>
<table class="numbers"><thead><tr><th scope="col">Kind (shown where ticked)</th><th scope="col">Size</th><th scope="col">Of the disk</th><th scope="col">Runs</th></tr></thead>
<tbody>${rows.join('\n')}</tbody></table>
</section>`;
}

function orderSection({ fragmentation }: DiskLayout, { layers }: ImageDescription): string {
  const named = layers.map(({ file }, depth) => ({ name: printable(file.path), depth }));
  const options = named.map(
    ({ name, depth }) => `<option value="${depth}">${escaped(name)}</option>`,
  );
  const rows = named.map(({ name, depth }) => {
    const { bytes, pieces, backwards } = fragmentation[depth]!;
    const mean = pieces === 0 ? '' : formatSize(Math.round(bytes / pieces));
    const cells = [formatSize(bytes), String(pieces), mean, String(backwards)];
    return `<tr><th scope="row">${escaped(name)}</th>${cells.map((cell) => `<td>${cell}</td>`).join('')}</tr>`;
  });
  return `<section aria-labelledby="order-title">
<h2 id="order-title">The order in the file</h2>
<p class="note">From left to right as on the disk, from below to above as in the file: data that lies in order is one rising line.</p>
<div class="bar"><label>File <select id="layer">${options.join('')}</select></label><span id="order-scale"></span></div>
<canvas id="order" role="img" aria-label="Where in the file each part of the disk lies; the table below tells how many pieces there are"></canvas>
<table class="numbers"><thead><tr><th scope="col">File</th><th scope="col">Data of this disk</th><th scope="col">Pieces</th><th scope="col">Mean piece</th><th scope="col">Backwards</th></tr></thead>
<tbody>${rows.join('\n')}</tbody></table>
</section>`;
}

function tableSection({ exact }: DiskLayout): string {
  const what = exact ? 'The runs that are shown' : 'The parts that are shown';
  return `<section><details id="table"><summary>${what}, as a table (the first 200)</summary>
<table><thead><tr><th scope="col">From</th><th scope="col">Size</th><th scope="col">What</th><th scope="col">Where</th></tr></thead>
<tbody id="runs"></tbody></table></details></section>`;
}

function pageData(layout: DiskLayout, description: ImageDescription): object {
  const order = kindOrder(layout);
  const positions = new Map(order.map((index, position) => [index, position]));
  return {
    start: layout.start,
    end: layout.end,
    exact: layout.exact,
    kinds: order.map((index) => {
      return { ...layout.kinds[index]!, name: kindName(layout.kinds[index]!, description) };
    }),
    layers: description.layers.map(({ file }) => ({ name: basename(printable(file.path)) })),
    cells: joined(layout.cells.map((cell) => cellNumbers(cell, positions))),
  };
}

/** As the page's script takes them. */
function cellNumbers(
  { length, shares, place, pieces }: Cell,
  positions: ReadonlyMap<number, number>,
) {
  const kinds = [...shares].map(([index, bytes]) => [positions.get(index)!, bytes] as const);
  const parts = kinds.length === 1 ? [kinds[0]![0]] : kinds.flat();
  return [length, place?.offset ?? -1, place?.depth ?? 0, pieces, ...parts];
}

/** Neighbours of one kind that lie nowhere are one. */
function joined(cells: readonly number[][]): number[][] {
  const all: number[][] = [];
  for (const cell of cells) {
    const before = all.at(-1);
    const isSame = before?.length === 5 && cell.length === 5 && before[4] === cell[4];
    if (isSame && before[1] === -1 && cell[1] === -1) before[0]! += cell[0]!;
    else all.push(cell);
  }
  return all;
}
