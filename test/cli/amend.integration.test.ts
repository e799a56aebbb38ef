/** `qcow2fs amend` beside `qemu-img amend`: words, exit codes and images. */
import { copyFileSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { parseAmendOptions } from '#src/cli/amend-options.js';
import { ImageError } from '#src/errors.js';
import { amendImage } from '#src/tools/amend.js';
import { openDisk } from '#src/tools/open-disk.js';
import { NO_PROGRESS } from '#src/tools/progress.js';
import { BothTools } from '../helpers/both-tools.js';
import { qemuImg, qemuIo, tryQemuIo } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

const NAME = 'disk.qcow2';

/** A command line for an image made with these options. What it says, and leaves, is QEMU's. */
interface Case {
  readonly create?: string;
  readonly words: readonly string[];
}

const o = (...lists: string[]): string[] => [...lists.flatMap((list) => ['-o', list]), NAME];

const HELP: readonly Case[] = [
  { words: o('help') },
  { words: o('?') },
  { words: o('compat=0.10,help') },
  { words: o('compat=0.10', 'help') },
  { words: ['-f', 'qcow2', '-o', 'help'] },
  { words: ['-f', 'qcow2', '-o', 'help', 'a', 'b'] },
  { words: ['-f', 'raw', '-o', 'help'] },
  { words: ['-f', 'bogus', '-o', 'help'] },
  { words: ['-o', 'help'] },
  { words: ['-o', 'help', 'nofile'] },
];

const USAGE: readonly Case[] = [
  { words: [] },
  { words: [NAME] },
  { words: ['-o'] },
  { words: ['-o', 'compat=0.10'] },
  { words: [...o('compat=0.10'), 'another'] },
  { words: ['-x', ...o('compat=0.10')] },
  { words: ['-U', ...o('compat=0.10')] },
  { words: ['-t', 'foo', ...o('compat=0.10')] },
  { words: ['-f', 'foo', ...o('compat=0.10')] },
  { words: ['-f', 'raw', ...o('size=1M')] },
  { words: ['--object', 'foo', ...o('compat=0.10')] },
  { words: ['--image-opts', ...o('compat=0.10')] },
  { words: ['--image-opts', '-f', 'qcow2', ...o('compat=0.10')] },
  { words: ['-o', 'compat=0.10', 'nofile'] },
  { words: ['-o', 'bogus=1', 'nofile'] },
  { words: o('') },
  { words: o(',,') },
  { words: o('size=1M,') },
  { words: o(',size=1M') },
  { words: o(',,size=1M') },
  { words: o('size=1M', '') },
];

/** Command lines that do something. */
const WORDS: readonly Case[] = [
  { words: o('compat=1.1', 'compat=0.10') },
  { words: ['-q', '-p', ...o('refcount_bits=8')] },
  { words: ['-p', ...o('lazy_refcounts=on')] },
  { words: ['-p', ...o('compat=1.1')] },
  { words: ['--force', '-t', 'none', ...o('compat=0.10')] },
  { words: ['-t', 'unsafe', ...o('refcount_bits=64')] },
  { words: ['-t', 'writethrough', ...o('size=3M')] },
  { words: ['--object', 'secret,id=a,data=b', ...o('compat=0.10')] },
  { words: ['--image-opts', '-o', 'compat=0.10', `driver=qcow2,file.filename=${NAME}`] },
  { words: [NAME, '-ocompat=0.10', '-fqcow2'] },
];

/** A list of options for an image made with others. */
interface OptionCase {
  readonly create?: string;
  readonly list: string;
}

const listsOf = (...lists: string[]): OptionCase[] => lists.map((list) => ({ list }));

const REFUSED: readonly OptionCase[] = [
  ...listsOf('bogus=1', '=foo', 'help=1', 'helpx', 'bogus=1,refcount_bits=foo', 'size=1M,,'),
  ...listsOf('cluster_size=64k', 'cluster_size=foo', 'cluster_size=1,bogus=1'),
  ...listsOf('preallocation=off', 'extended_l2=off', 'compression_type=zlib', 'noencryption'),
  ...listsOf('encrypt.format=luks', 'encrypt.state=active', 'encrypt.iter-time=3'),
  ...listsOf('compat=0.9', 'compat=', 'compat', 'nocompat', 'compat=0.10,,foo'),
  ...listsOf('size=1000,compat=0.9', 'cluster_size=1,size=1M', 'encrypt.iter-time=x'),
  ...listsOf('refcount_bits=0', 'refcount_bits=3', 'refcount_bits=128', 'refcount_bits=-8'),
  ...listsOf('refcount_bits=foo', 'refcount_bits=', 'refcount_bits', 'refcount_bits=16k'),
  ...listsOf('refcount_bits=99999999999999999999', 'refcount_bits=foo,bogus=1'),
  ...listsOf('lazy_refcounts=foo', 'lazy_refcounts=ON', 'lazy_refcounts='),
  ...listsOf('size=foo', 'size=', 'size', 'size=-1', 'size=99999999999999999999', 'size=1000'),
  ...listsOf('size=8E', 'size=4E', 'size=18446744073709551615'),
  ...listsOf('data_file=foo', 'data_file_raw=on', 'data_file_raw=on,data_file=x'),
  ...listsOf(
    'backing_file=x',
    'backing_fmt=raw',
    'backing_file=',
    'backing_file=x,backing_fmt=raw',
  ),
  ...listsOf('compat=0.10,lazy_refcounts=on', 'compat=0.10,refcount_bits=8'),
  ...listsOf('data_file=x,refcount_bits=3', 'backing_file=x,lazy_refcounts=on,compat=0.10'),
  { create: 'compat=0.10', list: 'lazy_refcounts=on' },
  { create: 'compat=0.10', list: 'refcount_bits=8' },
  { create: 'refcount_bits=8', list: 'compat=0.10' },
  { create: 'extended_l2=on', list: 'compat=0.10' },
  { create: 'data_file=data.raw', list: 'compat=0.10' },
  { create: 'data_file=data.raw', list: 'data_file_raw=on' },
];

const DONE: readonly OptionCase[] = [
  ...listsOf('compat=0.10', 'compat=v2', 'compat=1.1', 'compat=v3', 'lazy_refcounts'),
  ...listsOf('nolazy_refcounts', 'lazy_refcounts=yes', 'lazy_refcounts=true,size=1.5M'),
  ...listsOf(
    'data_file_raw=off',
    'size=2M',
    'size=512k',
    'size=0',
    'size=0x100000',
    'compat=0.10,compat=1.1',
    'compat=0.10,size=2G',
  ),
  { create: 'compat=0.10,cluster_size=4k', list: 'compat=1.1,refcount_bits=32,lazy_refcounts=on' },
  { create: 'compat=0.10', list: 'lazy_refcounts=off' },
  { create: 'compat=0.10', list: 'refcount_bits=16' },
  { create: 'compat=0.10', list: 'compat=1.1,size=5M' },
  { create: 'refcount_bits=8,cluster_size=4k', list: 'compat=0.10,refcount_bits=16' },
  { create: 'lazy_refcounts=on', list: 'compat=0.10' },
  { create: 'lazy_refcounts=on', list: 'compat=0.10,lazy_refcounts=on' },
  { create: 'lazy_refcounts=on', list: 'lazy_refcounts=off' },
  { create: 'compression_type=zstd', list: 'compat=0.10' },
  { create: 'cluster_size=512', list: 'refcount_bits=1' },
  { create: 'cluster_size=512', list: 'compat=0.10,size=3M' },
  // QEMU looks through all the counts that there could be: few, with small clusters.
  ...['1', ' 8', '+8', '0x8', '010', '2', '4', '16', '32', '64'].map((bits) => ({
    create: 'cluster_size=4k',
    list: `refcount_bits=${bits}`,
  })),
];

describe('qemu-img amend', () => {
  const temp = useTempFolder();
  let tools: BothTools;
  beforeEach(() => {
    tools = new BothTools(temp);
  });

  /** An image of 1 MiB with data, zeroes of both kinds and nothing: once for each list of options. */
  function make(options = ''): void {
    tools.make((folder) => {
      const [path, kept] = [
        join(folder, NAME),
        join(folder, `${options.replaceAll('/', '')}.kept`),
      ];
      if (!existsSync(kept)) {
        const placed = options.replace('data.raw', join(folder, 'data.raw'));
        qemuImg('create', '-q', '-f', 'qcow2', '-o', placed || 'compat=1.1', kept, '1M');
        const zeroes = ['write -z 0 64k', 'write -z -u 256k 64k'];
        qemuIo(kept, 'write -P 1 0 192k', ...(options.includes('0.10') ? [] : zeroes));
      }
      copyFileSync(kept, path);
    });
  }

  function refuses(cases: readonly Case[]): void {
    for (const { create, words } of cases) {
      make(create);
      const before = readFileSync(tools.at('ours', NAME));
      expect(tools.same(['amend', ...words]).status, words.join(' ')).to.equal(1);
      expect(readFileSync(tools.at('ours', NAME)).equals(before), words.join(' ')).to.equal(true);
    }
  }

  it('lists the options that can be amended', () => {
    make();
    for (const { words } of HELP) tools.same(['amend', ...words]);
  });

  it('refuses a wrong command line in the same words', () => {
    refuses(USAGE);
  });

  it('amends an image as QEMU does', () => {
    for (const { create, words } of WORDS) {
      make(create);
      const { status } = tools.same(['amend', ...words], { disks: [NAME] });
      expect(status, words.join(' ')).to.equal(0);
    }
  });

  it('tells how far it is as QEMU does, L1 entry by L1 entry', () => {
    const zeroes = [0, 1, 2, 3].map((at) => `write -z ${at}G 64k`);
    tools.make((folder) => {
      const path = join(folder, NAME);
      qemuImg('create', '-q', '-f', 'qcow2', path, '4G');
      qemuIo(path, ...zeroes);
    });
    tools.same(['amend', '-p', ...o('compat=0.10')]);
    tools.same(['amend', ...o('compat=1.1')]);
    tools.make((folder) => {
      qemuIo(join(folder, NAME), ...zeroes);
      qemuImg('snapshot', '-c', 'one', join(folder, NAME));
    });
    tools.same(['amend', '-p', ...o('compat=0.10')], { disks: [NAME] });
  });

  it('amends an image that was not closed', () => {
    tools.make((folder) => {
      const path = join(folder, NAME);
      qemuImg('create', '-q', '-f', 'qcow2', '-o', 'lazy_refcounts=on', path, '1M');
      tryQemuIo('-c', 'write -P 42 0 128k', '-c', 'flush', '-c', 'abort', path);
    });
    // What QEMU says of the repair is no matter.
    for (const side of ['qemu', 'ours'] as const) {
      expect(tools.run(side, ['amend', ...o('compat=0.10')]).status).to.equal(0);
    }
    tools.sameDisk(NAME);
  });

  /** The same without a process: what the command would print on standard error. */
  async function amend(list: string): Promise<string> {
    const disk = await openDisk(tools.at('ours', NAME), { writable: true });
    try {
      await amendImage(disk, parseAmendOptions(list, disk.description.layers[0]), NO_PROGRESS);
      return '';
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      const { hint } = error.context;
      return `qemu-img: ${error.message}${hint === undefined ? '' : `\n${hint}`}\n`;
    } finally {
      disk.abandon();
    }
  }

  async function same({ create, list }: OptionCase): Promise<string> {
    make(create);
    const { stderr } = tools.run('qemu', ['amend', '-t', 'unsafe', '-o', list, NAME]);
    expect(await amend(list), `${create}: ${list}`).to.equal(stderr);
    return stderr;
  }

  it('refuses options and values in the same words, and changes nothing', async () => {
    for (const one of REFUSED) {
      make(one.create);
      const before = readFileSync(tools.at('ours', NAME));
      expect(await same(one), one.list).to.not.equal('');
      expect(readFileSync(tools.at('ours', NAME)).equals(before), one.list).to.equal(true);
    }
  });

  it('takes the same options, to the same end', async () => {
    for (const one of DONE) {
      expect(await same(one)).to.equal('');
      tools.sameDisk(NAME);
    }
  });
});
