/**
 * The script of the page that `map --html` writes: it draws what lies in the page as JSON. It runs in a browser,
 * with nothing but the page itself.
 */

/** A part of the disk: its length, where it begins in a file (-1: nowhere), that file's layer, its pieces, its shares. */
type Cell = [length: number, place: number, depth: number, pieces: number, ...shares: number[]];

interface PageKind {
  readonly name: string;
  readonly content: string;
  readonly depth: number;
}

interface PageData {
  readonly start: number;
  readonly end: number;
  readonly exact: boolean;
  readonly kinds: readonly PageKind[];
  readonly layers: readonly { readonly name: string }[];
  /** Shares are a kind alone, or kinds and their bytes in turn. */
  readonly cells: readonly Cell[];
}

interface View {
  from: number;
  to: number;
}

const BOX = { width: 13, height: 18, gap: 1 };
const ROWS = 22;
const SECTOR = 512;
const PADDING = 8;
const MOST_ROWS = 200;

function byId<T extends HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

const data = JSON.parse(byId('data').textContent!) as PageData;
const starts: number[] = [];
let last = data.start;
for (const [length] of data.cells) {
  starts.push(last);
  last += length;
}
const whole: View = { from: data.start, to: data.end };
let view: View = { ...whole };
/** The box that the keyboard is at. */
let cursor = 0;
/** Kinds that are not shown. */
const hidden = new Set<number>();

const map = byId<HTMLCanvasElement>('map');
const overview = byId<HTMLCanvasElement>('overview');
const order = byId<HTMLCanvasElement>('order');
const layerChoice = byId<HTMLSelectElement>('layer');
const dark = matchMedia('(prefers-color-scheme: dark)');

// Sizes and numbers.

function sizeText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number(value.toPrecision(4))} ${units[unit]}`;
}

function hex(offset: number): string {
  return `0x${offset.toString(16)}`;
}

// Colours.

function isDark(): boolean {
  const chosen = document.documentElement.dataset.theme;
  return chosen === undefined ? dark.matches : chosen === 'dark';
}

type Colour = readonly [number, number, number];
const LAYERS: readonly Colour[] = [
  ...([
    [52, 113, 224],
    [32, 150, 105],
    [214, 98, 38],
    [186, 68, 140],
    [20, 144, 160],
  ] as const),
  ...([[140, 130, 30]] as const),
];
const LIGHT: Readonly<Record<string, Colour>> = {
  ...{ shared: [228, 166, 20], compressed: [138, 92, 214], reserved: [128, 152, 168] },
  ...{ zero: [186, 193, 201], unallocated: [233, 237, 241] },
};
const DARK: Readonly<Record<string, Colour>> = {
  ...{ shared: [232, 176, 52], compressed: [158, 118, 232], reserved: [104, 128, 144] },
  ...{ zero: [92, 100, 110], unallocated: [44, 50, 58] },
};

function colourOf({ content, depth }: PageKind): string {
  const layer = LAYERS[depth % LAYERS.length]!;
  const own = content === 'data' ? layer : (isDark() ? DARK : LIGHT)[content]!;
  // What lies further down takes after the colour of its layer.
  const part = content === 'data' || depth === 0 ? 0 : 0.45;
  const mixed = own.map((value, index) => Math.round(value * (1 - part) + layer[index]! * part));
  return `rgb(${mixed.join(' ')})`;
}

// What lies where.

/** The index of the cell that has that byte. */
function cellAt(offset: number): number {
  let [low, high] = [0, starts.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (starts[middle]! <= offset) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Calls `body` with each kind in a cell, and its part of the cell. */
function eachShare(cell: Cell, body: (kind: number, part: number) => void): void {
  if (cell.length === 5) {
    body(cell[4]!, 1);
    return;
  }
  for (let at = 4; at < cell.length; at += 2) body(cell[at]!, cell[at + 1]! / cell[0]);
}

/** Bytes of each kind in each part of a range, `each` bytes long but for the last one. */
function sharesOf({ from, to }: View, each: number): Float64Array[] {
  const count = Math.ceil((to - from) / each);
  const parts = Array.from({ length: count }, () => new Float64Array(data.kinds.length));
  for (let index = cellAt(from); index < starts.length && starts[index]! < to; index++) {
    const cell = data.cells[index]!;
    const start = Math.max(from, starts[index]!);
    const end = Math.min(to, starts[index]! + cell[0]);
    const last = Math.min(count - 1, Math.floor((end - from) / each));
    for (let part = Math.floor((start - from) / each); part <= last; part++) {
      const left = from + part * each;
      const bytes = Math.min(end, left + each) - Math.max(start, left);
      if (bytes > 0) eachShare(cell, (kind, share) => (parts[part]![kind]! += bytes * share));
    }
  }
  return parts;
}

// Drawing.

interface Surface {
  readonly context: CanvasRenderingContext2D;
  readonly width: number;
  readonly height: number;
}

function surfaceOf(canvas: HTMLCanvasElement): Surface {
  const scale = devicePixelRatio;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext('2d')!;
  context.scale(scale, scale);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

function columns(): number {
  return Math.max(1, Math.floor(map.clientWidth / BOX.width));
}

/** Bytes of a box: whole sectors, and a number that is easy to read. */
function boxBytes(): number {
  const least = Math.max(SECTOR, (view.to - view.from) / (columns() * ROWS));
  const step = Math.max(SECTOR, 2 ** (Math.floor(Math.log2(least)) - 2));
  return Math.ceil(least / step) * step;
}

function boxCount(): number {
  return Math.ceil((view.to - view.from) / boxBytes());
}

/** A box's kinds side by side, as much of each as there is. */
function drawShares(
  context: CanvasRenderingContext2D,
  shares: Float64Array,
  at: { x: number; y: number; width: number; height: number },
): void {
  const all = shares.reduce((sum, bytes) => sum + bytes, 0);
  let { x } = at;
  for (const [kind, bytes] of shares.entries()) {
    if (bytes === 0) continue;
    const width = (bytes / all) * at.width;
    if (!hidden.has(kind)) {
      context.fillStyle = colourOf(data.kinds[kind]!);
      // The least of something is to be seen.
      context.fillRect(x, at.y, Math.max(width, 0.75), at.height);
    }
    x += width;
  }
}

function drawMap(): void {
  const count = boxCount();
  const across = columns();
  map.style.height = `${Math.ceil(count / across) * BOX.height}px`;
  const { context } = surfaceOf(map);
  const size = { width: BOX.width - BOX.gap, height: BOX.height - BOX.gap };
  for (const [box, shares] of sharesOf(view, boxBytes()).entries()) {
    const x = (box % across) * BOX.width;
    const y = Math.floor(box / across) * BOX.height;
    drawShares(context, shares, { x, y, ...size });
  }
  cursor = Math.min(cursor, count - 1);
  if (document.activeElement !== map) return;
  context.strokeStyle = isDark() ? '#fff' : '#000';
  context.lineWidth = 2;
  const [x, y] = [(cursor % across) * BOX.width, Math.floor(cursor / across) * BOX.height];
  context.strokeRect(x + 0.5, y + 0.5, size.width - 1, size.height - 1);
}

function drawOverview(): void {
  const { context, width, height } = surfaceOf(overview);
  const count = Math.max(1, Math.floor(width));
  for (const [x, shares] of sharesOf(whole, (whole.to - whole.from) / count).entries()) {
    drawShares(context, shares, { x, y: 4, width: 1, height: height - 8 });
  }
  const scale = width / (whole.to - whole.from);
  context.strokeStyle = isDark() ? '#fff' : '#000';
  context.lineWidth = 2;
  const left = (view.from - whole.from) * scale;
  context.strokeRect(left + 1, 1, Math.max(4, (view.to - view.from) * scale) - 2, height - 2);
}

/** From left to right as on the disk, from below to above as in the file. */
function drawOrder(): void {
  const { context, width, height } = surfaceOf(order);
  const depth = Number(layerChoice.value);
  let most = 1;
  for (const [length, place, of] of data.cells) {
    if (of === depth && place >= 0) most = Math.max(most, place + (data.exact ? length : 0));
  }
  const across = (width - 2 * PADDING) / (view.to - view.from);
  const up = (height - 2 * PADDING) / most;
  context.lineWidth = 2.5;
  for (let index = cellAt(view.from); index < starts.length; index++) {
    const cell = data.cells[index]!;
    const [length, place, of] = cell;
    if (starts[index]! >= view.to) break;
    if (of !== depth || place < 0 || hidden.has(cell[4]!)) continue;
    const x = PADDING + (starts[index]! - view.from) * across;
    const y = height - PADDING - place * up;
    const isLine = data.exact && data.kinds[cell[4]!]!.content !== 'compressed';
    context.strokeStyle = colourOf(data.kinds[cell[4]!]!);
    context.beginPath();
    context.moveTo(x - 1.5, y);
    context.lineTo(Math.max(x + 1.5, x + length * across), isLine ? y - length * up : y);
    context.stroke();
  }
  byId('order-scale').textContent = `up to ${sizeText(most)} of the file`;
}

// Words for what is seen.

function describeRange(from: number, to: number): string {
  const first = cellAt(from);
  const [, place, depth] = data.cells[first]!;
  const shares = sharesOf({ from, to }, to - from)[0]!;
  const parts = [...shares.entries()]
    .filter(([, bytes]) => bytes > 0)
    .map(
      ([kind, bytes]) =>
        `${data.kinds[kind]!.name}${to - from > bytes ? ` (${sizeText(bytes)})` : ''}`,
    );
  const skip = from - starts[first]!;
  const isStraight = data.exact && data.kinds[data.cells[first]![4]!]!.content !== 'compressed';
  const at =
    place < 0 ? '' : `, at ${hex(place + (isStraight ? skip : 0))} of ${data.layers[depth]!.name}`;
  return `${hex(from)} to ${hex(to)} (${sizeText(to - from)}): ${parts.join(', ')}${at}`;
}

function boxRange(box: number): View {
  const from = view.from + box * boxBytes();
  return { from, to: Math.min(view.to, from + boxBytes()) };
}

function tell(box: number): void {
  const { from, to } = boxRange(box);
  byId('details').textContent = describeRange(from, to);
}

function fillTable(): void {
  const body = byId<HTMLTableSectionElement>('runs');
  body.replaceChildren();
  if (!byId<HTMLDetailsElement>('table').open) return;
  for (let index = cellAt(view.from); index < starts.length && starts[index]! < view.to; index++) {
    if (body.rows.length >= MOST_ROWS) break;
    const cell = data.cells[index]!;
    const [length, place, depth] = cell;
    const names: string[] = [];
    eachShare(cell, (kind) => void names.push(data.kinds[kind]!.name));
    const where = place < 0 ? '' : `${hex(place)} of ${data.layers[depth]!.name}`;
    const row = body.insertRow();
    for (const text of [hex(starts[index]!), sizeText(length), names.join(', '), where]) {
      row.insertCell().textContent = text;
    }
  }
}

// Moving about.

function draw(): void {
  drawMap();
  drawOverview();
  drawOrder();
  fillTable();
  const each = sizeText(boxBytes());
  byId('range').textContent = `${sizeText(view.from)} to ${sizeText(view.to)}, ${each} in each box`;
}

/** Shows a range, as far as it lies on the disk. */
function show(from: number, to: number): void {
  const most = whole.to - whole.from;
  const length = Math.min(most, Math.max(Math.min(most, SECTOR * 8), to - from));
  const start = Math.min(Math.max(whole.from, from), whole.to - length);
  const aligned = whole.from + Math.floor((start - whole.from) / SECTOR) * SECTOR;
  view = { from: aligned, to: Math.min(whole.to, Math.ceil(aligned + length)) };
  draw();
}

/** Makes the view `factor` times as long, around a byte that stays where it is. */
function zoom(factor: number, around: number): void {
  const length = (view.to - view.from) * factor;
  const part = (around - view.from) / (view.to - view.from);
  show(around - length * part, around + length * (1 - part));
}

function middle(): number {
  return document.activeElement === map ? boxRange(cursor).from : (view.from + view.to) / 2;
}

function boxUnder(event: MouseEvent): number {
  const { left, top } = map.getBoundingClientRect();
  const x = Math.min(columns() - 1, Math.max(0, Math.floor((event.clientX - left) / BOX.width)));
  const y = Math.floor((event.clientY - top) / BOX.height);
  return Math.min(boxCount() - 1, Math.max(0, y * columns() + x));
}

function moveCursor(by: number): void {
  const next = cursor + by;
  const row = boxBytes() * columns();
  if (next < 0 && view.from > whole.from) show(view.from - row, view.to - row);
  else if (next >= boxCount() && view.to < whole.to) show(view.from + row, view.to + row);
  else cursor = Math.min(boxCount() - 1, Math.max(0, next));
  drawMap();
  tell(cursor);
}

const KEYS: Readonly<Record<string, () => void>> = {
  '+': () => zoom(1 / 2, middle()),
  '=': () => zoom(1 / 2, middle()),
  '-': () => zoom(2, middle()),
  '0': () => show(whole.from, whole.to),
  ArrowLeft: () => moveCursor(-1),
  ArrowRight: () => moveCursor(1),
  ArrowUp: () => moveCursor(-columns()),
  ArrowDown: () => moveCursor(columns()),
  PageUp: () => show(2 * view.from - view.to, view.from),
  PageDown: () => show(view.to, 2 * view.to - view.from),
  Home: () => show(whole.from, whole.from + view.to - view.from),
  End: () => show(whole.to - view.to + view.from, whole.to),
};

function listen(): void {
  map.addEventListener('keydown', (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : KEYS[event.key];
    if (act === undefined) return;
    event.preventDefault();
    act();
  });
  map.addEventListener('focus', () => moveCursor(0));
  map.addEventListener('blur', drawMap);
  map.addEventListener('mousemove', (event) => tell(boxUnder(event)));
  map.addEventListener('click', (event) => {
    cursor = boxUnder(event);
    moveCursor(0);
  });
  map.addEventListener('dblclick', (event) => zoom(1 / 4, boxRange(boxUnder(event)).from));
  map.addEventListener(
    'wheel',
    (event) => {
      if (!event.ctrlKey && document.activeElement !== map) return;
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1 / 1.5 : 1.5, boxRange(boxUnder(event)).from);
    },
    { passive: false },
  );
  overview.addEventListener('click', (event) => {
    const { left, width } = overview.getBoundingClientRect();
    const at = whole.from + ((event.clientX - left) / width) * (whole.to - whole.from);
    const half = (view.to - view.from) / 2;
    show(at - half, at + half);
  });
  byId('in').addEventListener('click', () => zoom(1 / 2, middle()));
  byId('out').addEventListener('click', () => zoom(2, middle()));
  byId('all').addEventListener('click', () => show(whole.from, whole.to));
  byId('theme').addEventListener('click', () => {
    document.documentElement.dataset.theme = isDark() ? 'light' : 'dark';
    paintLegend();
    draw();
  });
  layerChoice.addEventListener('change', drawOrder);
  byId('table').addEventListener('toggle', fillTable);
  for (const box of document.querySelectorAll<HTMLInputElement>('input[data-kind]')) {
    box.addEventListener('change', () => {
      if (box.checked) hidden.delete(Number(box.dataset.kind));
      else hidden.add(Number(box.dataset.kind));
      draw();
    });
  }
  dark.addEventListener('change', () => {
    paintLegend();
    draw();
  });
  addEventListener('resize', draw);
}

function paintLegend(): void {
  for (const swatch of document.querySelectorAll<HTMLElement>('.swatch')) {
    swatch.style.background = colourOf(data.kinds[Number(swatch.dataset.kind)]!);
  }
}

if (data.end > data.start) {
  listen();
  paintLegend();
  draw();
  document.documentElement.dataset.drawn = 'yes';
}
