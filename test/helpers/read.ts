/** Reads whole disks through the image layer, as a worker of the mount would. */
import { AttachedImage } from '#src/image/attach.js';
import type { Disk } from '#src/image/disk.js';
import { closeImage, type OpenPolicy, openImage } from '#src/image/open.js';
import { loadZstd } from '#src/image/qcow2/compression.js';
import { allocateImageMemory } from '#src/image/memory.js';
import { MIN_CACHE_SIZE } from '#src/shared/slice-cache.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { imageOf } from './image-words.js';

// What `prepareToAttach` would load for an image that needs it.
await loadZstd();

/** Bytes of one read, as the kernel asks for. */
const CHUNK_SIZE = 1 << 20;

export interface OpenImageUse {
  readonly image: AttachedImage;
  readonly warnings: readonly string[];
}

/** Opens the image, hands it to `use`, and closes it again. */
export function withImage<T>(
  path: string,
  use: (opened: OpenImageUse) => T,
  policy: OpenPolicy = {},
): T {
  const { description, warnings } = openImage(imageOf(path), policy);
  try {
    const memory = allocateImageMemory(description, { cacheSize: MIN_CACHE_SIZE, owners: 1 });
    return use({ image: new AttachedImage(description, memory, 1), warnings });
  } finally {
    closeImage(description);
  }
}

/** `length` bytes of the disk at `offset`: all of it where nothing is said. */
export function readDisk(disk: Disk, offset = 0, length = disk.size - offset): Buffer {
  const whole = Buffer.alloc(length);
  const chunk = new IoBuffer(Math.min(length, CHUNK_SIZE));
  for (let done = 0; done < length; done += chunk.length) {
    const n = Math.min(chunk.length, length - done);
    chunk.bytes.fill(0xee);
    disk.read(offset + done, n, chunk, 0);
    chunk.bytes.copy(whole, done, 0, n);
  }
  return whole;
}

/** The disk of the image at `path`. */
export function readImage(path: string, policy: OpenPolicy = {}): Buffer {
  return withImage(path, ({ image }) => readDisk(image.disk), policy);
}

/** The runs of data that `seek` tells of, and whether they are told in order without end. */
export function dataRuns(disk: Disk): { start: number; end: number }[] {
  const runs: { start: number; end: number }[] = [];
  let at = 0;
  while (at < disk.size) {
    const start = disk.seek(at, false);
    if (start >= disk.size) break;
    const end = disk.seek(start, true);
    if (start < at || end <= start || end > disk.size) {
      throw new Error(`seek at ${at}: data from ${start} to ${end} of ${disk.size}`);
    }
    runs.push({ start, end });
    at = end;
  }
  return runs;
}
