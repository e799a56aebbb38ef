/** What the user is told when a command has opened an image to write to it. */
import type { OpenDisk } from '../tools/open-disk.js';
import { programName, reportWarning } from './program.js';

/** QEMU's words for a raw image that is one by its looks alone; ours only under our own name. */
export function reportOpening({ description, warnings }: OpenDisk, filename: string): void {
  const [top] = description.layers;
  if (top.format === 'raw' && top.probed === true) {
    process.stderr.write(
      `WARNING: Image format was not specified for '${filename}' and probing guessed raw.
         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.
         Specify the 'raw' format explicitly to remove the restrictions.
`,
    );
  }
  if (programName() === 'qcow2fs') for (const warning of warnings) reportWarning(warning);
}
