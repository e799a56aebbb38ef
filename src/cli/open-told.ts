/** Opening disks for commands, which tell what QEMU tells of the images. */
import { type OpenDisk, openDisk } from '../tools/open-disk.js';
import { reportWarning } from './program.js';

/** As `openDisk`, with QEMU's warnings of bitmaps. */
export async function openTold(...words: Parameters<typeof openDisk>): Promise<OpenDisk> {
  const disk = await openDisk(...words);
  warnOfStaleBitmaps(disk.staleBitmaps);
  return disk;
}

/** `versions`: of the images whose bitmaps are out of date. */
export function warnOfStaleBitmaps(versions: readonly number[]): void {
  for (const version of versions) {
    const why =
      version < 3
        ? 'This qcow2 v2 image contains bitmaps, but they may have been modified by a program ' +
          'without persistent bitmap support; so now they must all be considered inconsistent'
        : 'a program lacking bitmap support modified this file, so all bitmaps are now considered ' +
          'inconsistent';
    const hint = "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix.";
    reportWarning(`${why}\n${hint}`);
  }
}
