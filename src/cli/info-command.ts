/** `info`: words to `runInfo`. */
import { getopt, type Option } from './getopt.js';
import {
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  imageSpec,
  OBJECT,
  OUTPUT,
  outputFormat,
} from './image-options.js';
import { runInfo } from './info.js';
import { takeObjects } from './objects.js';
import type { Outcome } from './outcome.js';
import { programName, UsageError } from './program.js';

const BACKING_CHAIN: Option = { long: 'backing-chain' };
const NO_BACKING: Option = { long: 'no-backing' };
const BACKING_ROOT: Option = { long: 'backing-root', value: true };
const OPTIONS = [
  { ...FORMAT, long: 'format' },
  IMAGE_OPTS,
  FORCE_SHARE,
  OBJECT,
  OUTPUT,
  BACKING_CHAIN,
];
/** They would take part in how QEMU's own can be shortened. */
const OUR_OPTIONS = [NO_BACKING, BACKING_ROOT];

export async function runInfoCommand(words: string[]): Promise<Outcome> {
  const isOurs = programName() === 'qcow2fs';
  const args = getopt(words, isOurs ? [...OPTIONS, ...OUR_OPTIONS] : OPTIONS);
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
