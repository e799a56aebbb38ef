/** One thread's part of a copy: takes ranges, reads them, finds their zeroes, and hands them to the sink. */
import { isExpected } from '../errors.js';
import { AttachedImage, prepareToAttach } from '../image/attach.js';
import type { FileDescription, ImageDescription } from '../image/description.js';
import { storageOf } from '../image/file-storage.js';
import type { ImageMemory } from '../image/memory.js';
import { loadZstd } from '../image/qcow2/compression.js';
import type { Geometry } from '../image/qcow2/geometry.js';
import { isZero } from '../image/zeroes.js';
import { CopyState } from '../shared/copy-state.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { BulkSink, CompressedBulkSink } from './copy-bulk-sink.js';
import { CopyFailure, type CopyFailureFacts } from './copy-failure.js';
import { CHUNK_SIZE, CopyFeed, type CopyRange } from './copy-feed.js';
import {
  CompressedWriterSink,
  type Compression,
  type CopySink,
  type Layout,
  needsZstd,
  RawSink,
  type Span,
  WriterSink,
} from './copy-sink.js';
import { CopySource, type SourcePart } from './copy-source.js';

/** Where it goes, for every thread. Plain data. */
export type CopyTarget =
  | { readonly kind: 'raw'; readonly file: FileDescription }
  | { readonly kind: 'bulk'; readonly file: FileDescription; readonly geometry: Geometry }
  | {
      readonly kind: 'writer';
      readonly description: ImageDescription;
      readonly memory: ImageMemory;
    };

/** What is copied where, and how. Plain data. */
export interface CopyJob {
  readonly sources: readonly SourcePart[];
  readonly target: CopyTarget;
  readonly state: SharedArrayBuffer;
  /** Of the target's clusters, a power of two; 512 where it has none. */
  readonly unit: number;
  readonly compression: Compression | null;
  /** Runs of so many bytes that are zeroes are found and not written; 0: none is looked for. */
  readonly sparse: number;
  /** The target has a backing file: what the source has in its own is left out. */
  readonly overBacking: boolean;
  /** Zeroes below that offset of the target must be written. */
  readonly zeroesBelow: number;
  readonly salvage: boolean;
  /** Bytes a second; 0 for as many as can be. */
  readonly rate: number;
}

/** What has become of a range. */
export interface CopyReport {
  readonly ticket: number;
  /** The disk is done up to there, once all tickets before are. */
  readonly end: number;
  readonly layout: Layout | null;
  /** What could not be read and was passed over. */
  readonly problems: readonly CopyFailureFacts[];
}

/** The number of the program's own thread: it copies until a worker has begun, if one does. */
export const MAIN_THREAD = 1;

/** Ranges that are copied before it is told what takes longer. */
const TRIAL_RANGES = 16;
/** Reading takes so many times as long as writing where more threads save more than they cost. */
const SLOW_READS = 2;

export class CopyThread {
  readonly #job: CopyJob;
  readonly #state: CopyState;
  readonly #source: CopySource;
  readonly #feed: CopyFeed;
  readonly #sink: CopySink;
  readonly #buffer: IoBuffer;
  /** Ranges that were copied, and the milliseconds that both halves of that took. */
  #ranges = 0;
  #readingMs = 0;
  #writingMs = 0;

  private constructor(job: CopyJob, owner: number) {
    this.#job = job;
    this.#state = new CopyState(job.state, owner);
    const { overBacking, salvage, unit, zeroesBelow, rate } = job;
    this.#source = new CopySource(job.sources, { knowsBacking: overBacking, salvage }, owner);
    const wholeUnits = job.compression !== null;
    // Where nothing is sparse, zeroes are data like all else.
    const matters = job.sparse === 0 ? Number.POSITIVE_INFINITY : zeroesBelow;
    this.#feed = new CopyFeed(this.#source, this.#state, {
      unit,
      wholeUnits,
      zeroesBelow: matters,
      rate,
      longZeroes: job.sparse > 0,
      givesWay: owner === MAIN_THREAD,
    });
    this.#sink = sinkOf(job, this.#state, owner);
    this.#buffer = new IoBuffer(Math.max(CHUNK_SIZE, unit));
  }

  /** `owner`: this thread's number, MAIN_THREAD or one above. */
  static async start(job: CopyJob, owner: number): Promise<CopyThread> {
    for (const { description } of job.sources) await prepareToAttach(description);
    if (job.target.kind === 'writer') await prepareToAttach(job.target.description);
    if (needsZstd(job.compression)) await loadZstd();
    const thread = new CopyThread(job, owner);
    if (owner !== MAIN_THREAD) thread.#state.takeOver();
    return thread;
  }

  /** Whether reading is what takes the time: it expands, decrypts, or waits for a disk. */
  get isReadingSlowly(): boolean {
    return this.#ranges >= TRIAL_RANGES && this.#readingMs > SLOW_READS * this.#writingMs;
  }

  /** Copies one range; null where none is left, or left for this thread. Throws a CopyFailure, and Stopped. */
  step(): CopyReport | null {
    const range = this.#feed.take();
    if (range === null) return null;
    const { ticket, start, end } = range;
    const before = performance.now();
    const { data, zeroes } = this.#load(range);
    const loaded = performance.now();
    let layout: Layout | null;
    try {
      layout = this.#sink.put({ ticket, start, end, buffer: this.#buffer, data, zeroes });
    } catch (error) {
      if (!isExpected(error)) throw error;
      throw CopyFailure.of('write', start, error);
    }
    this.#ranges++;
    this.#readingMs += loaded - before;
    this.#writingMs += performance.now() - loaded;
    const problems = this.#source.takeProblems().map(({ facts }) => facts);
    return { ticket, end, layout, problems };
  }

  /** Reads what is data; tells what of it is to be written, and what are zeroes. */
  #load({ start, segments }: CopyRange): { data: Span[]; zeroes: Span[] } {
    const { sparse, zeroesBelow } = this.#job;
    const [data, zeroes]: Span[][] = [[], []];
    const { bytes } = this.#buffer;
    for (const { content, start: from, end: to } of segments) {
      if (content === 'backing') continue;
      if (content === 'data') this.#source.read(from, to, this.#buffer, from - start);
      else if (sparse === 0) bytes.fill(0, from - start, to - start);
      if (sparse === 0) addSpan(data!, from, to);
      else if (content === 'zero') addSpan(zeroes!, from, Math.min(to, zeroesBelow));
      else this.#split(start, from, to, data!, zeroes!);
    }
    return { data: data!, zeroes: zeroes! };
  }

  /** Most data tells by its first bytes that it is no zeroes. `at`: a multiple of 512. */
  #isZero(at: number, length: number): boolean {
    return this.#buffer.view.getUint32(at) === 0 && isZero(this.#buffer, at, length);
  }

  /** Tells the zeroes of [from, to) from its data, in the steps in which they are looked for. */
  #split(start: number, from: number, to: number, data: Span[], zeroes: Span[]): void {
    const { sparse, compression, zeroesBelow } = this.#job;
    const step = compression?.clusterSize ?? sparse;
    for (let at = from; at < to; ) {
      const next = Math.min(to, (Math.floor(at / step) + 1) * step);
      if (this.#isZero(at - start, next - at)) {
        addSpan(zeroes, at, Math.min(next, zeroesBelow));
      } else addSpan(data, at, next);
      at = next;
    }
  }
}

/** Joins it to the last one where it goes on there. */
function addSpan(spans: Span[], start: number, end: number): void {
  if (end <= start) return;
  const last = spans.at(-1);
  if (last?.end === start) spans[spans.length - 1] = { start: last.start, end };
  else spans.push({ start, end });
}

function sinkOf(job: CopyJob, state: CopyState, owner: number): CopySink {
  const { target, compression } = job;
  if (target.kind === 'raw') return new RawSink(storageOf(target.file), state);
  if (target.kind === 'writer') {
    const writer = new AttachedImage(target.description, target.memory, owner).writer!;
    return compression === null
      ? new WriterSink(writer)
      : new CompressedWriterSink(writer, compression);
  }
  const storage = storageOf(target.file);
  return compression === null
    ? new BulkSink(storage, state, target.geometry)
    : new CompressedBulkSink(storage, state, target.geometry, compression);
}
