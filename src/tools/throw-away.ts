/** Disks whose changes are thrown away: a qcow2 overlay in a file without a name lies over the image. */
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  realpathSync,
  rmdirSync,
  unlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { isExpected } from '../errors.js';
import { O_TMPFILE } from '../sys/file.js';
import { createOverlay } from '../image/qcow2/create.js';
import type { ImageSpec } from '../image/spec.js';
import { type DiskOptions, type OpenDisk, openDisk } from './open-disk.js';

/** Opens a disk that reads as the image does, which is opened for reading; errors as `openDisk`'s. */
export async function openThrowAway(spec: ImageSpec, options: DiskOptions): Promise<OpenDisk> {
  const backing = { ...spec, readOnly: true };
  // Held open until the overlay is: nobody who keeps to the locks changes it meanwhile.
  const base = await openDisk(backing, { ...options, writable: false });
  try {
    const fd = openNameless(spec.path);
    try {
      const backingFormat = base.description.layers[0].format;
      const backingFile = realpathSync(spec.path);
      createOverlay(fd, { size: base.size, backingFile, backingFormat });
      const path = `/proc/self/fd/${fd}`;
      const overlay = { path, filename: spec.filename, format: 'qcow2', keys: spec.keys };
      return await openDisk(
        { ...overlay, backing: { ...backing, format: backingFormat } },
        options,
      );
    } finally {
      closeSync(fd);
    }
  } finally {
    base.abandon();
  }
}

/** An empty file that has no name: in the image's folder, or where that cannot be, with other such. */
export function openNameless(image: string): number {
  for (const folder of [dirname(image), tmpdir()]) {
    try {
      return openSync(folder, O_TMPFILE | constants.O_RDWR, 0o600);
    } catch (error) {
      // A read-only folder; a file system that knows no such files.
      if (!isExpected(error)) throw error;
    }
  }
  const folder = mkdtempSync(join(tmpdir(), 'qcow2fs-'));
  const path = join(folder, 'overlay');
  try {
    return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  } finally {
    unlinkSync(path);
    rmdirSync(folder);
  }
}
