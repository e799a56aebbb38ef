/** The text of `status`: mounts, for people or as JSON. */
import type { ImageStatus, RequestStatus } from '../mount/status.js';
import { printable } from '../sys/log.js';
import { coloured } from './colour.js';
import { formatDate, formatSize, padLeft, padRight } from './human.js';
import type { Told } from './status.js';
import type { ImageRates, MountRates, RequestRates } from './status-rates.js';

/** A mount, what it said, and the rates that come of it. */
export interface Shown {
  readonly told: Told;
  /** Null where it said nothing. */
  readonly rates: MountRates | null;
}

const NAME = 14;
const COLUMN = 11;

export function statusObject({ told, rates }: Shown): object {
  const { mount, status, problem, servers } = told;
  const common = { mountpoint: mount.target, source: mount.source };
  if (status === null || rates === null) {
    return { ...common, reachable: false, problem, pids: servers };
  }
  const { images, requests, since, now, ...rest } = status;
  const { 'bucket-seconds': _, ...facts } = rest;
  return {
    ...common,
    reachable: true,
    ...facts,
    since: new Date(since * 1000).toISOString(),
    'uptime-seconds': now - since,
    'rates-of-seconds': rates.seconds,
    images: images.map((image, index) => ({ ...image, ...rates.images[index] })),
    requests: Object.fromEntries(
      Object.entries(requests).map(([name, { count, errors, seconds }]) => {
        return [name, { count, errors, seconds, ...rates.requests[name] }];
      }),
    ),
  };
}

/** A paragraph for each mount. */
export function statusText(shown: readonly Shown[]): string {
  if (shown.length === 0) return 'No images are mounted.\n';
  return `${shown.map((one) => mountText(one).join('\n')).join('\n\n')}\n`;
}

function mountText({ told, rates }: Shown): string[] {
  const { mount, status, problem, servers } = told;
  const target = coloured('green', printable(mount.target));
  if (status === null || rates === null) {
    const by = servers.length === 0 ? '' : ` (process ${servers.join(', ')})`;
    const words = coloured('red', printable(problem ?? ''));
    return [`${target}: ${printable(mount.source)}${by}`, `  ${words}`];
  }
  const { pid, workers, since, now } = status;
  const memory = formatSize(status['resident-bytes']);
  const cpu = `${status['cpu-seconds'].toFixed(1)} s of processor time`;
  const isNew = Math.abs(rates.seconds - (now - since)) < 1e-3;
  return [
    `${target}: process ${pid}, since ${formatDate(since)}, ${workers} workers, ${memory}, ${cpu}`,
    `  rates: ${isNew ? 'since then' : `of the last ${duration(rates.seconds)}`}`,
    ...status.images.flatMap((image, index) => imageText(image, rates.images[index]!)),
    ...requestTable(status.requests, rates.requests),
  ];
}

function imageText(image: ImageStatus, rates: ImageRates): string[] {
  const mode = image['read-only'] ? 'ro' : 'rw';
  const size = formatSize(image['virtual-size']);
  const ratio = rates['cache-hit-ratio'];
  const misses = `${count(image['cache-misses'])} misses so far`;
  const lines = [
    `  ${printable(image.filename)}: ${image.format}, ${mode}, ${size}`,
    transferred('read', image['read-bytes'], image.reads, {
      bytes: rates['read-bytes-per-second'],
      requests: rates['reads-per-second'],
    }),
  ];
  if (!image['read-only']) {
    lines.push(
      transferred('written', image['written-bytes'], image.writes, {
        bytes: rates['written-bytes-per-second'],
        requests: rates['writes-per-second'],
      }),
    );
  }
  if (ratio !== null) lines.push(`    cache hits   ${(ratio * 100).toFixed(2)} %, ${misses}`);
  if (image.flushes > 0) {
    const each = duration(image['flush-seconds'] / image.flushes);
    lines.push(`    flushes      ${count(image.flushes)}, ${each} each`);
  }
  if (image['allocated-bytes'] > 0) {
    lines.push(`    allocated    ${formatSize(image['allocated-bytes'])}`);
  }
  return lines;
}

function transferred(
  what: string,
  bytes: number,
  requests: number,
  rates: { bytes: number; requests: number },
): string {
  const so = `${formatSize(bytes)} in ${count(requests)} requests`;
  const per = `${formatSize(Math.round(rates.bytes))}/s, ${rate(rates.requests)} requests/s`;
  return `    ${padRight(what, 13)}${so}; ${per}`;
}

function requestTable(
  requests: Readonly<Record<string, RequestStatus>>,
  rates: Readonly<Record<string, RequestRates>>,
): string[] {
  const row = (name: string, cells: readonly string[]): string =>
    `  ${padRight(name, NAME)}${cells.map((cell) => padLeft(cell, COLUMN)).join('')}`;
  const time = (seconds: number | null): string => (seconds === null ? '-' : duration(seconds));
  const rows = Object.entries(requests)
    .sort(([, a], [, b]) => b.count - a.count)
    .map(([name, request]) => {
      const of = rates[name]!;
      const latencies = [of['mean-seconds'], of['p50-seconds'], of['p99-seconds']].map(time);
      const cells = [count(request.count), count(request.errors), rate(of['per-second'])];
      return row(name, [...cells, ...latencies]);
    });
  if (rows.length === 0) return [];
  return [row('request', ['count', 'errors', 'per s', 'mean', 'p50', 'p99']), ...rows];
}

function count(number: number): string {
  return String(number);
}

function rate(perSecond: number): string {
  return perSecond >= 100 ? perSecond.toFixed(0) : perSecond.toFixed(1);
}

const UNITS = [
  ['s', 1],
  ['ms', 1e-3],
  ['µs', 1e-6],
] as const;

/** In three digits, as `1.25 ms`. */
export function duration(seconds: number): string {
  const [unit, size] = UNITS.find((candidate) => seconds >= candidate[1]) ?? UNITS[2];
  const value = seconds / size;
  return `${value >= 100 ? value.toFixed(0) : value.toPrecision(3)} ${unit}`;
}
