/**
 * Converting: one disk, or several behind each other, into an image. What is a hole or zeroes is not
 * copied where the target reads as zeroes already; over a backing file neither is what the source has in
 * its own.
 */
import { fstatSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { isExpected } from '../errors.js';
import { filesOf, layerCompression } from '../image/description.js';
import { fileIdentity } from '../image/file-identity.js';
import { allocateImageMemory } from '../image/memory.js';
import type { Bitmap } from '../image/qcow2/bitmaps.js';
import { allocateCopyState, CopyState } from '../shared/copy-state.js';
import type { ConvertTarget } from './convert-target.js';
import { runCopy } from './copy.js';
import { CopyFailure } from './copy-failure.js';
import { copyBitmaps } from './bitmaps.js';
import type { CopyJob } from './copy-thread.js';
import type { SourcePart } from './copy-source.js';
import type { OpenDisk } from './open-disk.js';
import type { Progress } from './progress.js';

const CACHE_SIZE = 32 << 20;
/** Bytes on the host up to which threads take longer to start than they save. */
const SMALL = 128 << 20;
/** The same where it is compressed. */
const SMALL_COMPRESSED = 1 << 20;
/** Threads that write to one file: more of them only wait for each other. */
const MOST_WRITERS = 4;
/** `st_blocks` counts these, whatever the file system's block size. */
const BLOCK_SIZE = 512;

/** A disk that is copied. */
export interface ConvertSource {
  readonly disk: OpenDisk;
  /** Its snapshot of that view number instead; the active disk where it is null. */
  readonly view: number | null;
  /** The part that is copied; all of it where it is not given. Bytes, within the disk. */
  readonly part?: { readonly offset: number; readonly size: number };
}

export interface ConvertOptions {
  /** Compressed clusters: the target is a qcow2 or qcow image. */
  readonly compressed: boolean;
  /** Runs of so many bytes that are zeroes are not written, a multiple of 512; 0: all is written. */
  readonly sparse: number;
  /** The target has the backing file that the source has. */
  readonly overBacking: boolean;
  /** The target, though it is not new, is zeroes. */
  readonly targetIsZero: boolean;
  /** What cannot be read is zeroes, sector by sector. */
  readonly salvage: boolean;
  /** Bytes a second; 0 for as many as can be. */
  readonly rate: number;
  /** Threads at most. */
  readonly threads: number;
  readonly progress: Progress;
  /** Bitmaps of the source that the target gets, as well. */
  readonly bitmaps: readonly Bitmap[];
  /** Told of what was passed over, with `salvage`, in the disk's order. */
  readonly onProblem: (problem: CopyFailure) => void;
}

/** All the files that they are read from: none of them may be written to (`fileIdentity`). */
export function sourceFiles(disks: readonly OpenDisk[]): string[] {
  const layers = disks.flatMap(({ description }) => description.layers);
  const files = layers.flatMap(filesOf);
  return files.filter((file) => file.nullDisk === undefined).map(({ fd }) => fileIdentity(fd));
}

/** Bytes that are copied. */
export function sourceSize({ disk, view, part }: ConvertSource): number {
  if (part !== undefined) return part.size;
  return view === null ? disk.size : disk.image.snapshotDisk(view).size;
}

/**
 * Copies and finishes the target, which is at least as large as the sources together. Where it throws (a
 * CopyFailure, Cancelled) the target is abandoned: no image comes of a new one.
 */
export async function convertDisks(
  sources: readonly ConvertSource[],
  target: ConvertTarget,
  options: ConvertOptions,
): Promise<void> {
  let finished = false;
  try {
    const size = sources.reduce((sum, source) => sum + sourceSize(source), 0);
    await copy(sources, size, target, options);
    writing(size, () => target.settle());
    if (options.bitmaps.length > 0)
      copyBitmaps(sources[0]!.disk, options.bitmaps, target.bitmaps());
    writing(size, () => target.finish());
    finished = true;
  } finally {
    if (!finished) target.abandon();
  }
}

async function copy(
  sources: readonly ConvertSource[],
  size: number,
  target: ConvertTarget,
  options: ConvertOptions,
): Promise<void> {
  const { progress, salvage, sparse, overBacking, rate } = options;
  const threads = threadsFor(sources, options);
  // The main thread copies, too.
  const owners = threads + 1;
  const memory = allocateCopyState();
  const job: CopyJob = {
    sources: sources.map((source) => partOf(source, owners)),
    target: target.prepare(owners, new CopyState(memory, owners + 1).layout),
    state: memory,
    unit: target.unit,
    compression: options.compressed ? compressionOf(target) : null,
    sparse: target.needsAll ? 0 : sparse,
    overBacking,
    zeroesBelow: zeroesBelow(target, options),
    salvage,
    rate,
  };
  await runCopy(job, {
    threads,
    startsThreads: startsThreads(job),
    size,
    progress,
    onReport: (report) => {
      for (const problem of report.problems) options.onProblem(new CopyFailure(problem));
      writing(report.end, () => target.take(report));
    },
  });
}

function partOf(source: ConvertSource, owners: number): SourcePart {
  const { description } = source.disk;
  const memory = allocateImageMemory(description, { cacheSize: CACHE_SIZE, owners });
  const offset = source.part?.offset ?? 0;
  return { description, memory, view: source.view, offset, size: sourceSize(source) };
}

function compressionOf(target: ConvertTarget) {
  const [top] = target.disk.description.layers;
  return { type: layerCompression(top), clusterSize: target.unit };
}

/** What lies behind the end of a backing file reads as zeroes in any case. */
function zeroesBelow({ disk, isZero }: ConvertTarget, options: ConvertOptions): number {
  const { overBacking, targetIsZero } = options;
  if (overBacking) return disk.disk.backing?.size ?? Number.POSITIVE_INFINITY;
  return isZero || targetIsZero ? 0 : Number.POSITIVE_INFINITY;
}

/**
 * Bytes that go into a new file as they are: the host takes one write at a time, and more threads only pay
 * where there is work in reading them.
 */
function startsThreads({ target, compression, rate }: CopyJob): boolean {
  return target.kind === 'writer' || compression !== null || rate > 0;
}

/**
 * Who compresses needs one thread more than there are processors: while one waits for its turn, all have
 * work. Else the host's file is what they wait for, and takes one write at a time.
 */
function threadsFor(sources: readonly ConvertSource[], options: ConvertOptions): number {
  let bytes = 0;
  for (const { disk } of sources) {
    for (const { file } of disk.description.layers) bytes += fstatSync(file.fd).blocks * BLOCK_SIZE;
  }
  const small = options.compressed ? SMALL_COMPRESSED : SMALL;
  // Who waits for the rate to allow more must not keep signals waiting.
  if (bytes <= small && options.rate === 0) return 0;
  const processors = availableParallelism();
  const useful = options.compressed ? processors + 1 : Math.min(processors, MOST_WRITERS);
  return Math.min(options.threads, useful);
}

/** Errors are those of writing up to `offset`. */
function writing(offset: number, body: () => void): void {
  try {
    body();
  } catch (error) {
    if (error instanceof CopyFailure || !isExpected(error)) throw error;
    throw CopyFailure.of('write', offset, error);
  }
}
