/** `qcow2fs map`: words to the map of a disk. */
import { ImageError } from '../errors.js';
import { blockStatus } from '../tools/block-status.js';
import { openDisk } from '../tools/open-disk.js';
import { humanMap, jsonMap } from './map.js';
import type { Outcome } from './outcome.js';
import { parseWords } from './words.js';

export async function runMapCommand(words: string[], usage: string): Promise<Outcome> {
  const spec = {
    flags: ['force-share'],
    values: ['format', 'output'],
    alias: { f: 'format', U: 'force-share' },
    operands: ['FILE'],
  };
  const parsed = parseWords(words, spec, usage);
  const output = parsed.values('output').at(-1) ?? 'human';
  if (output !== 'human' && output !== 'json') {
    const message = '--output must be used with human or json as argument.';
    throw new ImageError('invalid', 'EINVAL', message);
  }
  const format = parsed.values('format').at(-1);
  const opened = await openDisk(parsed.operands[0]!, {
    policy: { format },
    forceShare: parsed.flag('force-share'),
  });
  try {
    const runs = blockStatus(opened);
    for (const line of output === 'json' ? jsonMap(runs, 0) : humanMap(runs)) {
      process.stdout.write(line);
    }
  } finally {
    opened.abandon();
  }
  return { status: 0 };
}
