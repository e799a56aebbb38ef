/** `qcow2fs info`: words to `runInfo`. */
import { ImageError } from '../errors.js';
import { runInfo } from './info.js';
import { parseWords } from './words.js';

const USAGE = 'info [-f FMT] [--output=human|json] [--backing-chain] [-U] IMAGE';

export async function runInfoCommand(words: string[]): Promise<number> {
  const spec = {
    flags: ['backing-chain', 'force-share'],
    values: ['format', 'output'],
    alias: { f: 'format', U: 'force-share' },
    operands: ['IMAGE'],
  };
  const parsed = parseWords(words, spec, USAGE);
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
    policy: { lock: parsed.flag('force-share') ? undefined : 'info' },
    ...(format === undefined ? {} : { format }),
  });
  process.stdout.write(text);
  return 0;
}
