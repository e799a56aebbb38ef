/** What is copied: one disk, or several behind each other; what lies where in it, and its bytes. */
import { AttachedImage } from '../image/attach.js';
import type { ImageDescription } from '../image/description.js';
import type { Disk } from '../image/disk.js';
import type { ImageMemory } from '../image/memory.js';
import { SECTOR_SIZE } from '../image/extent.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import { isExpected } from '../errors.js';
import { CopyFailure } from './copy-failure.js';
import { type Layer, layersOf, statusAt } from './block-status.js';

/** One of the disks, for every thread. Plain data. */
export interface SourcePart {
  readonly description: ImageDescription;
  readonly memory: ImageMemory;
  /** Of a snapshot, by its view number; the active disk where it is null. */
  readonly view: number | null;
  /** The part of it that is copied, in bytes. */
  readonly offset: number;
  readonly size: number;
}

/** `BACKING`: nothing in the image itself, so that a target over the same backing file shows it. */
export type Content = 'data' | 'zero' | 'backing';

/** From byte `start` on up to `end` all is alike. */
export interface Segment {
  readonly content: Content;
  readonly start: number;
  readonly end: number;
}

export interface SourceOptions {
  /** What lies in backing files is told from what does not. */
  readonly knowsBacking: boolean;
  /** What cannot be read is zeroes, sector by sector, and noted. */
  readonly salvage: boolean;
}

interface Part {
  readonly disk: Disk;
  readonly layers: readonly Layer[];
  /** Of the disk: what is copied begins there. */
  readonly offset: number;
  readonly start: number;
  readonly end: number;
}

export class CopySource {
  /** Bytes of all disks. */
  readonly size: number;
  /** What could not be read since `takeProblems`: only where that is passed over. */
  #problems: CopyFailure[] = [];
  readonly #salvage: boolean;
  readonly #parts: readonly Part[];
  readonly #knowsBacking: boolean;
  /** Where the last look was. */
  #current = 0;

  /** `owner`: the thread's number. */
  constructor(parts: readonly SourcePart[], options: SourceOptions, owner: number) {
    this.#salvage = options.salvage;
    this.#knowsBacking = options.knowsBacking;
    let size = 0;
    this.#parts = parts.map(({ description, memory, view, offset, size: own }) => {
      const image = new AttachedImage(description, memory, owner);
      const disk = view === null ? image.disk : image.snapshotDisk(view);
      const start = size;
      size += own;
      return { disk, layers: layersOf({ description, disk }), offset, start, end: size };
    });
    this.size = size;
  }

  /** What lies at `offset`, as far as one look tells. Throws a CopyFailure. */
  look(offset: number): Segment {
    const { layers, start, end, offset: first } = this.#partAt(offset);
    try {
      const { zero, depth, length } = statusAt(layers, first + offset - start, end - offset);
      const content = this.#knowsBacking && depth > 0 ? 'backing' : zero ? 'zero' : 'data';
      return { content, start: offset, end: offset + length };
    } catch (error) {
      this.#passOver('status', offset, error);
      // Just try to read it.
      return { content: 'data', start: offset, end: Math.min(offset + SECTOR_SIZE, end) };
    }
  }

  /** The segments of [start, end). */
  *segments(start: number, end: number): Generator<Segment, void, void> {
    let run: Segment | undefined;
    for (let offset = start; offset < end; ) {
      const seen = this.look(offset);
      const next = { ...seen, end: Math.min(seen.end, end) };
      offset = next.end;
      if (run?.content === next.content) run = { ...run, end: offset };
      else {
        if (run !== undefined) yield run;
        run = next;
      }
    }
    if (run !== undefined) yield run;
  }

  /** Reads [start, end) into `target` from byte `at` on. Throws a CopyFailure. */
  read(start: number, end: number, target: IoBuffer, at: number): void {
    try {
      this.#read(start, end, target, at);
    } catch (error) {
      if (!this.#salvage) throw failure('read', start, error);
      this.#readSectors(start, end, target, at);
    }
  }

  /** What has been passed over since the last call, in order. */
  takeProblems(): CopyFailure[] {
    const problems = this.#problems;
    if (problems.length > 0) this.#problems = [];
    return problems;
  }

  /** Sector by sector: zeroes for those that cannot be read. */
  #readSectors(start: number, end: number, target: IoBuffer, at: number): void {
    for (let offset = start; offset < end; offset += SECTOR_SIZE) {
      const stop = Math.min(end, offset + SECTOR_SIZE);
      const place = at + offset - start;
      try {
        this.#read(offset, stop, target, place);
      } catch (error) {
        this.#passOver('read', offset, error);
        target.bytes.fill(0, place, place + stop - offset);
      }
    }
  }

  #read(start: number, end: number, target: IoBuffer, at: number): void {
    for (let offset = start; offset < end; ) {
      const part = this.#partAt(offset);
      const n = Math.min(end, part.end) - offset;
      part.disk.read(part.offset + offset - part.start, n, target, at + offset - start);
      offset += n;
    }
  }

  /** Notes an error, or throws it where nothing is passed over. */
  #passOver(stage: 'status' | 'read', offset: number, error: unknown): void {
    const problem = failure(stage, offset, error);
    if (!this.#salvage) throw problem;
    // A place may be looked at twice.
    const known = this.#problems.some((one) => one.offset === offset && one.stage === stage);
    if (!known) this.#problems.push(problem);
  }

  #partAt(offset: number): Part {
    const parts = this.#parts;
    let part = parts[this.#current]!;
    if (offset < part.start || offset >= part.end) {
      this.#current = parts.findIndex(({ start, end }) => offset >= start && offset < end);
      part = parts[this.#current]!;
    }
    return part;
  }
}

function failure(stage: 'status' | 'read', offset: number, error: unknown): CopyFailure {
  if (!isExpected(error)) throw error;
  return CopyFailure.of(stage, offset, error);
}
