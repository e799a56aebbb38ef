/** Commands by chance, on both tools: what they say, and what becomes of the image. */
import { spawnSync } from 'node:child_process';
import { BothIo } from '../helpers/both-io.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { useTempFolder } from '../helpers/temp.js';

const COMMANDS = 60;

const KINDS: Readonly<Record<string, readonly string[]>> = {
  'small clusters': ['-o', 'cluster_size=512'],
  'version 2': ['-o', 'compat=0.10,cluster_size=4k'],
  'version 3': ['-o', 'cluster_size=4k'],
  subclusters: ['-o', 'extended_l2=on,cluster_size=16k'],
  'lazy refcounts': ['-o', 'lazy_refcounts=on,cluster_size=64k'],
  'version 2 over another': [
    '-o',
    'compat=0.10,cluster_size=4k',
    '-b',
    'base.qcow2',
    '-F',
    'qcow2',
  ],
  'version 3 over another': ['-o', 'cluster_size=4k', '-b', 'base.qcow2', '-F', 'qcow2'],
  'subclusters over another': ['-o', 'extended_l2=on', '-b', 'base.qcow2', '-F', 'qcow2'],
  'data file': ['-o', 'data_file=data,cluster_size=4k'],
};

/** Bytes of the disk: in the middle of a cluster, mostly. */
const SIZE = 600 << 10;

function make(folder: string, options: readonly string[]): void {
  const run = (tool: string, ...words: string[]) => spawnSync(tool, words, { cwd: folder });
  if (options.includes('base.qcow2')) {
    run('qemu-img', 'create', '-f', 'qcow2', 'base.qcow2', '400k');
    run('qemu-io', '-c', 'write -P 1 0 100k', '-c', 'write -z 200k 64k', 'base.qcow2');
  }
  run('qemu-img', 'create', '-f', 'qcow2', ...options, 'a.qcow2', String(SIZE));
}

/*
 * Nothing compressed: QEMU 7.2 itself damages images where the host cluster that its next compressed data
 * goes to was freed before.
 */

/** A place and a length that are aligned to something, or to nothing. */
function range(random: Random): string {
  const unit = random.pick([1, 512, 4096, 4096, 16384, 65536]);
  const offset = random.below(Math.floor(SIZE / unit)) * unit;
  const length = random.chance(0.05) ? SIZE - offset : (1 + random.below(12)) * unit;
  return `${offset} ${length}`;
}

function command(random: Random): string {
  const where = range(random);
  const byte = random.below(256);
  return random.pick([
    `write -P ${byte} ${where}`,
    `write -P ${byte} ${where}`,
    `writev -P ${byte} ${where} 512`,
    `write -z ${where}`,
    `write -z ${where}`,
    `write -zu ${where}`,
    `write -zn ${where}`,
    `discard ${where}`,
    `discard ${where}`,
    `read -P ${random.below(3)} ${where}`,
    `alloc ${where}`,
    `aio_write -P ${byte} ${where}`,
    'map',
    'flush',
    'reopen -o lazy-refcounts=on',
    'reopen -o detect-zeroes=unmap',
  ]);
}

describe('qemu-io, commands by chance', () => {
  printSeed();
  const temp = useTempFolder();

  for (const [kind, options] of Object.entries(KINDS)) {
    it(`does what QEMU's own does: ${kind}`, () => {
      const random = new Random(SEED);
      const commands: string[] = [];
      for (let n = 0; n < COMMANDS; n++) {
        commands.push(command(random));
        // Nobody knows when such requests are told of.
        if (commands.at(-1)!.startsWith('aio')) commands.push('aio_flush');
      }
      commands.push('map');
      new BothIo(temp).same((folder) => make(folder, options), { words: ['a.qcow2'], commands });
    });
  }
});
