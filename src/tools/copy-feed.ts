/** Hands out what is to be copied, range by range, to all threads of a copy. */
import { alignDown, alignUp } from '../codec/bits.js';
import type { CopyState } from '../shared/copy-state.js';
import type { CopySource, Segment } from './copy-source.js';

/** Bytes of a range at most, but for zeroes: large enough that a range costs little beside its bytes. */
export const CHUNK_SIZE = 2 << 20;
/** Zeroes that are written at once. */
const ZEROES_SIZE = 1 << 30;

/** A range of the disk for one thread. It begins and ends at a unit of the target, or at the disk's end. */
export interface CopyRange {
  readonly ticket: number;
  readonly start: number;
  readonly end: number;
  readonly segments: readonly Segment[];
}

export interface FeedOptions {
  /** Of the target: no two ranges have a part of the same one. Bytes, at most CHUNK_SIZE. */
  readonly unit: number;
  /** A unit is copied as a whole: with what backing files have of it. */
  readonly wholeUnits: boolean;
  /** Zeroes below that offset must be written. */
  readonly zeroesBelow: number;
  /** Long runs of zeroes are one range, which need not fit a buffer. */
  readonly longZeroes: boolean;
  /** Bytes a second; 0 for as many as can be. */
  readonly rate: number;
  /** It ends where another thread has begun. */
  readonly givesWay: boolean;
}

export class CopyFeed {
  readonly #source: CopySource;
  readonly #state: CopyState;
  readonly #options: FeedOptions;

  constructor(source: CopySource, state: CopyState, options: FeedOptions) {
    this.#source = source;
    this.#state = state;
    this.#options = options;
  }

  /** The next range with something to do; null where there is none for this thread, or where all are to stop. */
  take(): CopyRange | null {
    const { rate, givesWay } = this.#options;
    let range: CopyRange | null = null;
    let due = 0;
    this.#state.claim((position) => {
      if (givesWay && this.#state.takenOver) return position;
      const start = this.#skip(position);
      if (this.#state.stopped || start >= this.#source.size) return this.#source.size;
      const { end, segments } = this.#rangeAt(start);
      range = { ticket: this.#state.takeTicket(), start, end, segments };
      if (rate > 0) due = this.#state.reserveTime(end - start, rate, now());
      return end;
    }, givesWay);
    while (due > now() && !this.#state.stopped) this.#state.sleep(due - now());
    return this.#state.stopped ? null : range;
  }

  /** Where the first unit at or after `position` begins that has something to copy. */
  #skip(position: number): number {
    while (position < this.#source.size) {
      const segment = this.#source.look(position);
      if (this.#matters(segment)) return alignDown(position, this.#options.unit);
      position = segment.end;
    }
    return this.#source.size;
  }

  #matters({ content, start }: Segment): boolean {
    return content === 'data' || (content === 'zero' && start < this.#options.zeroesBelow);
  }

  #rangeAt(start: number): { end: number; segments: readonly Segment[] } {
    const { unit } = this.#options;
    const { size } = this.#source;
    const first = this.#source.look(start);
    const zeroesEnd = first.end === size ? size : alignDown(first.end, unit);
    const isLong = this.#options.longZeroes && zeroesEnd > start + CHUNK_SIZE;
    if (first.content === 'zero' && isLong) {
      const end = Math.min(zeroesEnd, start + ZEROES_SIZE);
      return { end, segments: [{ content: 'zero', start, end }] };
    }
    const end = Math.min(size, alignUp(start + 1, Math.max(unit, CHUNK_SIZE)));
    const segments = [...this.#source.segments(start, end)];
    return { end, segments: this.#options.wholeUnits ? wholeUnits(segments, unit) : segments };
  }
}

function now(): number {
  return performance.timeOrigin + performance.now();
}

/** Units that are not all alike are data. */
function wholeUnits(segments: readonly Segment[], unit: number): Segment[] {
  const whole: Segment[] = [];
  const add = (next: Segment): void => {
    const last = whole.at(-1);
    if (next.end <= next.start) return;
    if (last?.content === next.content) whole[whole.length - 1] = { ...last, end: next.end };
    else whole.push(next);
  };
  const end = segments.at(-1)!.end;
  for (const { content, start, end: segmentEnd } of segments) {
    const from = alignUp(start, unit);
    const to = segmentEnd === end ? end : alignDown(segmentEnd, unit);
    // The unit in which it begins has others, too: once is enough.
    if (from > start) {
      const stop = Math.min(from, end);
      const known = whole.at(-1)?.end ?? alignDown(start, unit);
      add({ content: 'data', start: Math.max(known, alignDown(start, unit)), end: stop });
    }
    add({ content, start: Math.min(from, end), end: Math.max(to, Math.min(from, end)) });
  }
  return whole;
}
