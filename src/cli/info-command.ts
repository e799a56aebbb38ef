/** `qcow2fs info`: words to `runInfo`. */
import { ImageError } from '../errors.js';
import { runInfo } from './info.js';
import type { Outcome } from './outcome.js';
import { parseWords } from './words.js';

export async function runInfoCommand(words: string[], usage: string): Promise<Outcome> {
  const spec = {
    flags: ['backing-chain', 'force-share', 'no-backing'],
    values: ['backing-root', 'format', 'output'],
    alias: { f: 'format', U: 'force-share' },
    operands: ['IMAGE'],
  };
  const parsed = parseWords(words, spec, usage);
  const output = parsed.values('output').at(-1) ?? 'human';
  if (output !== 'human' && output !== 'json') {
    throw new ImageError(
      'invalid',
      'EINVAL',
      '--output must be used with human or json as argument.',
    );
  }
  const format = parsed.values('format').at(-1);
  const text = runInfo({
    path: parsed.operands[0]!,
    json: output === 'json',
    backingChain: parsed.flag('backing-chain'),
    policy: {
      lock: parsed.flag('force-share') ? undefined : 'info',
      noBacking: parsed.flag('no-backing'),
      backingRoot: parsed.values('backing-root').at(-1),
    },
    ...(format === undefined ? {} : { format }),
  });
  process.stdout.write(text);
  return { status: 0 };
}
