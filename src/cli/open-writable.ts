/** Opening an image that a command changes. */
import { ImageError } from '../errors.js';
import type { ImageSpec } from '../image/spec.js';
import type { WriteOptions } from '../image/write-options.js';
import type { OpenDisk } from '../tools/open-disk.js';
import { openTold } from './open-told.js';
import { warnOfProbing } from './probing.js';

/** Opens the image for writing, and warns of formats that are guessed. Throws in QEMU's words. */
export async function openWritable(
  spec: ImageSpec,
  write: Partial<WriteOptions> = {},
): Promise<OpenDisk> {
  if (spec.readOnly === true) {
    const message = `Could not open '${spec.filename}': Block node is read-only`;
    throw new ImageError('policy', 'EACCES', message);
  }
  const disk = await openTold(spec, { writable: true, write });
  warnOfProbing(disk);
  return disk;
}
