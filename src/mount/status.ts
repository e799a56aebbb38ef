/**
 * What a mount has done since it began: of all its threads, for `MNT/.qcow2fs` and for `qcow2fs status`, which
 * reads it there, or as an attribute where the mount is one file.
 */
import type { AttachedImage } from '../image/attach.js';
import { allocateMadeTexts, type MadeTextsMemory } from '../shared/made-texts.js';
import {
  allocateRequestCounters,
  bucketLimitNs,
  LATENCY_BUCKETS,
  type RequestTotals,
  requestTotals,
} from '../shared/request-counters.js';

/** What the threads of a mount need for it: plain data. */
export interface StatusFacts {
  /** Of `RequestCounters`. */
  readonly requests: SharedArrayBuffer;
  readonly texts: MadeTextsMemory;
  /** The names of requests, by their opcodes. */
  readonly opcodes: ReadonlyMap<number, string>;
  /** Milliseconds since 1970. */
  readonly since: number;
  readonly pid: number;
  readonly workers: number;
}

/** One image of a mount. Sizes are bytes, times seconds; all but the first four grow from 0 on. */
export interface ImageStatus {
  readonly filename: string;
  readonly format: string;
  readonly 'read-only': boolean;
  readonly 'virtual-size': number;
  readonly reads: number;
  readonly 'read-bytes': number;
  readonly writes: number;
  readonly 'written-bytes': number;
  readonly 'cache-hits': number;
  readonly 'cache-misses': number;
  readonly flushes: number;
  readonly 'flush-seconds': number;
  readonly 'allocated-bytes': number;
}

/** The requests of one kind. */
export interface RequestStatus {
  readonly count: number;
  readonly errors: number;
  readonly seconds: number;
  /** How many took less than `bucket-seconds` of the mount's status, and as much as the bucket before. */
  readonly buckets: readonly number[];
}

/** What `status.json` holds. */
export interface MountStatus {
  readonly pid: number;
  /** Seconds since 1970. */
  readonly since: number;
  readonly now: number;
  readonly workers: number;
  /** Of the whole process: what it has in memory, and the processor's time that it took. */
  readonly 'resident-bytes': number;
  readonly 'cpu-seconds': number;
  readonly images: readonly ImageStatus[];
  /** Upper limits of the latencies in each of the `buckets`; the last one has none, and null. */
  readonly 'bucket-seconds': readonly (number | null)[];
  /** By the kernel's names. */
  readonly requests: Readonly<Record<string, RequestStatus>>;
}

const NS_PER_SEC = 1e9;
const US_PER_SEC = 1e6;
const MS_PER_SEC = 1e3;

const BUCKET_SECONDS = Array.from({ length: LATENCY_BUCKETS }, (_, bucket) => {
  const limit = bucketLimitNs(bucket);
  return limit === Number.POSITIVE_INFINITY ? null : limit / NS_PER_SEC;
});

export function allocateStatus(workers: number, opcodes: ReadonlyMap<number, string>): StatusFacts {
  return {
    requests: allocateRequestCounters(workers),
    texts: allocateMadeTexts(),
    opcodes,
    since: Date.now(),
    pid: process.pid,
    workers,
  };
}

export function imageStatus(
  image: Pick<AttachedImage, 'description' | 'disk' | 'totals'>,
): ImageStatus {
  const { description, disk } = image;
  const [top] = description.layers;
  const totals = image.totals();
  return {
    filename: top.file.path,
    format: top.format,
    'read-only': !description.writable,
    'virtual-size': disk.size,
    reads: totals.reads,
    'read-bytes': totals.readBytes,
    writes: totals.writes,
    'written-bytes': totals.writtenBytes,
    'cache-hits': totals.cacheHits,
    'cache-misses': totals.cacheMisses,
    flushes: totals.flushes,
    'flush-seconds': totals.flushMilliseconds / MS_PER_SEC,
    'allocated-bytes': totals.allocated,
  };
}

export function mountStatus(facts: StatusFacts, images: readonly ImageStatus[]): MountStatus {
  const { user, system } = process.cpuUsage();
  const requests: Record<string, RequestStatus> = {};
  for (const [code, totals] of requestTotals(facts.requests)) {
    requests[facts.opcodes.get(code) ?? `OPCODE_${code}`] = requestStatus(totals);
  }
  return {
    pid: facts.pid,
    since: facts.since / MS_PER_SEC,
    now: Date.now() / MS_PER_SEC,
    workers: facts.workers,
    'resident-bytes': process.memoryUsage.rss(),
    'cpu-seconds': (user + system) / US_PER_SEC,
    images,
    'bucket-seconds': BUCKET_SECONDS,
    requests,
  };
}

function requestStatus({ count, errors, milliseconds, buckets }: RequestTotals): RequestStatus {
  return { count, errors, seconds: milliseconds / MS_PER_SEC, buckets };
}
