/** `qcow2fs umount`: words to `umount`. */
import type { Outcome } from './outcome.js';
import { umount } from './umount.js';
import { parseWords } from './words.js';

export async function runUmountCommand(words: string[], usage: string): Promise<Outcome> {
  const spec = { flags: ['lazy'], alias: { l: 'lazy' }, operands: ['MOUNTPOINT'] };
  const { operands, flag } = parseWords(words, spec, usage);
  await umount(operands[0]!, { lazy: flag('lazy') });
  return { status: 0 };
}
