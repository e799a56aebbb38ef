/** `info`: words to `runInfo`. */
import { OPTIONS } from './command-options.js';
import { getopt } from './getopt.js';
import { imageSpec, outputFormat } from './image-options.js';
import { runInfo } from './info.js';
import { takeObjects } from './objects.js';
import type { Outcome } from './outcome.js';
import { programName, UsageError } from './program.js';

export async function runInfoCommand(words: string[]): Promise<Outcome> {
  const isOurs = programName() === 'qcow2fs';
  const args = getopt(
    words,
    OPTIONS.info.filter(({ ours }) => isOurs || ours !== true),
  );
  takeObjects(args.all('object'));
  const [image, ...others] = args.operands;
  if (image === undefined || others.length > 0) {
    throw new UsageError('Expecting one image file name');
  }
  const output = outputFormat(args);
  const text = runInfo({
    spec: imageSpec(image, args, { format: args.last('format') }),
    json: output === 'json',
    backingChain: args.has('backing-chain'),
    policy: {
      lock: 'info',
      noBacking: args.has('no-backing'),
      backingRoot: args.last('backing-root'),
    },
  });
  process.stdout.write(text);
  return { status: 0 };
}
