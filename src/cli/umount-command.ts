/** `qcow2fs umount`: words to `umount`. */
import { umount } from './umount.js';
import { parseWords } from './words.js';

export async function runUmountCommand(words: string[]): Promise<number> {
  const { operands } = parseWords(words, { operands: ['MOUNTPOINT'] }, 'umount MOUNTPOINT');
  await umount(operands[0]!);
  return 0;
}
