/** From what a mount has done so far to rates and latencies: since it began, or since it was asked before. */
import type { ImageStatus, MountStatus, RequestStatus } from '../mount/status.js';

/** Rates of an image; sizes in bytes. */
export interface ImageRates {
  readonly 'reads-per-second': number;
  readonly 'read-bytes-per-second': number;
  readonly 'writes-per-second': number;
  readonly 'written-bytes-per-second': number;
  /** Of lookups in the metadata cache, those that found something, in that time; null where there were none. */
  readonly 'cache-hit-ratio': number | null;
}

export interface RequestRates {
  readonly 'per-second': number;
  /** How long requests took in that time: the mean, and what a half and a hundredth of them exceeded. */
  readonly 'mean-seconds': number | null;
  readonly 'p50-seconds': number | null;
  readonly 'p99-seconds': number | null;
}

export interface MountRates {
  /** How long the time was that rates are of. */
  readonly seconds: number;
  /** In the order of the status. */
  readonly images: readonly ImageRates[];
  readonly requests: Readonly<Record<string, RequestRates>>;
}

/** `before`: what the same mount said then. */
export function ratesOf(status: MountStatus, before: MountStatus | undefined): MountRates {
  const isSame = before?.pid === status.pid && before.since === status.since;
  const base = isSame ? before : undefined;
  const seconds = Math.max(status.now - (base?.now ?? status.since), Number.MIN_VALUE);
  const images = status.images.map((image) => {
    const old = base?.images.find(({ filename }) => filename === image.filename);
    return imageRates(image, old, seconds);
  });
  const limits = status['bucket-seconds'];
  const requests = Object.entries(status.requests).map(([name, request]) => {
    return [name, requestRates(request, base?.requests[name], limits, seconds)] as const;
  });
  return { seconds, images, requests: Object.fromEntries(requests) };
}

type Counter = Exclude<keyof ImageStatus, 'filename' | 'format' | 'read-only'>;

function imageRates(image: ImageStatus, old: ImageStatus | undefined, seconds: number): ImageRates {
  const grown = (name: Counter): number => image[name] - (old?.[name] ?? 0);
  const hits = grown('cache-hits');
  const lookups = hits + grown('cache-misses');
  return {
    'reads-per-second': grown('reads') / seconds,
    'read-bytes-per-second': grown('read-bytes') / seconds,
    'writes-per-second': grown('writes') / seconds,
    'written-bytes-per-second': grown('written-bytes') / seconds,
    'cache-hit-ratio': lookups === 0 ? null : hits / lookups,
  };
}

function requestRates(
  request: RequestStatus,
  old: RequestStatus | undefined,
  limits: readonly (number | null)[],
  seconds: number,
): RequestRates {
  const buckets = request.buckets.map((count, bucket) => count - (old?.buckets[bucket] ?? 0));
  const count = request.count - (old?.count ?? 0);
  const took = request.seconds - (old?.seconds ?? 0);
  return {
    'per-second': count / seconds,
    'mean-seconds': count === 0 ? null : took / count,
    'p50-seconds': quantile(buckets, limits, 0.5),
    'p99-seconds': quantile(buckets, limits, 0.99),
  };
}

/** Within its bucket a latency is taken to lie where its rank does. */
export function quantile(
  buckets: readonly number[],
  limits: readonly (number | null)[],
  part: number,
): number | null {
  const total = buckets.reduce((sum, count) => sum + count, 0);
  if (total === 0) return null;
  let rank = part * total;
  for (const [bucket, count] of buckets.entries()) {
    if (rank > count || count === 0) {
      rank -= count;
      continue;
    }
    const from = bucket === 0 ? 0 : limits[bucket - 1]!;
    const to = limits[bucket];
    return to === null || to === undefined ? from : from + ((to - from) * rank) / count;
  }
  return null;
}
