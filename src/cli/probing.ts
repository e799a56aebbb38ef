/** What users are told where the format of an image that they write to was guessed. */
import type { OpenDisk } from '../tools/open-disk.js';

/**
 * Warns of an image that is raw by its looks alone: whoever writes its first sector could make it look
 * like something else. The words are QEMU's.
 */
export function warnOfProbing({ description }: Pick<OpenDisk, 'description'>): void {
  const [top] = description.layers;
  if (!description.writable || top.format !== 'raw' || top.probed !== true) return;
  process.stderr.write(
    `WARNING: Image format was not specified for '${top.file.path}' and probing guessed raw.
         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.
         Specify the 'raw' format explicitly to remove the restrictions.
`,
  );
}
