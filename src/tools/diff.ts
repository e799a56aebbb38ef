/** The extents in which two disks differ: by their maps, and by their bytes where maps do not tell. */
import type { ImageDescription } from '../image/description.js';
import type { Disk } from '../image/disk.js';
import { SECTOR_SIZE } from '../image/extent.js';
import { fileIdentity } from '../image/file-identity.js';
import { type ComparedDisk, MapComparison } from '../image/map-comparison.js';
import { IoBuffer } from '../sys/io-buffer.js';
import type { MappedDisk } from './block-status.js';
import type { Progress } from './progress.js';

/** Bytes that are read and compared at once. */
const CHUNK_SIZE = 1 << 20;

/** Bytes; `zero`: the second disk has nothing but zeroes there, by its map. */
export interface Difference {
  readonly start: number;
  readonly length: number;
  readonly zero: boolean;
}

export interface DiffOptions {
  /** Go by the maps alone: fast, but whole clusters differ that were written with what they held. */
  readonly metadataOnly: boolean;
  readonly progress: Progress;
}

/**
 * The differences in order, none adjacent to a like one; whole sectors where bytes were compared. The disk
 * that is smaller reads as zeroes behind its end. Throws what reading throws, and Cancelled.
 */
export async function* diffDisks(
  first: MappedDisk,
  second: MappedDisk,
  { metadataOnly, progress }: DiffOptions,
): AsyncGenerator<Difference> {
  const maps = new MapComparison(comparedDisk(first), comparedDisk(second));
  const bytes = new ByteComparison(first.disk, second.disk);

  async function* rawDifferences(): AsyncGenerator<Difference> {
    for (let offset = 0; offset < maps.size; offset += maps.length) {
      await progress.advance(offset / maps.size);
      maps.look(offset);
      const { differs, length, zero } = maps;
      if (!differs) continue;
      if (metadataOnly) yield { start: offset, length, zero };
      for (let done = 0; !metadataOnly && done < length; done += CHUNK_SIZE) {
        await progress.advance((offset + done) / maps.size);
        yield* bytes.differences(offset + done, Math.min(CHUNK_SIZE, length - done), zero);
      }
    }
  }

  let last: Difference | null = null;
  for await (const next of rawDifferences()) {
    if (last !== null && last.start + last.length === next.start && last.zero === next.zero) {
      last = { start: last.start, length: last.length + next.length, zero: last.zero };
      continue;
    }
    if (last !== null) yield last;
    last = next;
  }
  if (last !== null) yield last;
  await progress.advance(1);
}

function comparedDisk({ description, disk }: MappedDisk): ComparedDisk {
  return { disk, files: filesOf(description) };
}

/** The same file, opened twice, is the same. */
function filesOf({ layers }: ImageDescription): string[] {
  return layers.map(({ file: { fd, window } }) => `${fileIdentity(fd)}:${window?.offset ?? 0}`);
}

class ByteComparison {
  readonly #disks: readonly [Disk, Disk];
  readonly #buffers = [new IoBuffer(CHUNK_SIZE), new IoBuffer(CHUNK_SIZE)] as const;

  constructor(first: Disk, second: Disk) {
    this.#disks = [first, second];
  }

  /** Of [start, start + length), at most CHUNK_SIZE: the runs of sectors that differ. */
  *differences(start: number, length: number, zero: boolean): Generator<Difference> {
    const [one, other] = this.#buffers;
    this.#read(0, start, length);
    this.#read(1, start, length);
    const differs = (at: number, n: number) =>
      one.bytes.compare(other.bytes, at, at + n, at, at + n) !== 0;
    if (!differs(0, length)) return;
    let from = -1;
    for (let at = 0; at < length; at += SECTOR_SIZE) {
      const isDifferent = differs(at, Math.min(SECTOR_SIZE, length - at));
      if (isDifferent && from < 0) from = at;
      if (isDifferent || from < 0) continue;
      yield { start: start + from, length: at - from, zero };
      from = -1;
    }
    if (from >= 0) yield { start: start + from, length: length - from, zero };
  }

  #read(which: 0 | 1, start: number, length: number): void {
    const disk = this.#disks[which];
    const buffer = this.#buffers[which];
    const present = Math.max(0, Math.min(length, disk.size - start));
    if (present > 0) disk.read(start, present, buffer, 0);
    buffer.bytes.fill(0, present, length);
  }
}
