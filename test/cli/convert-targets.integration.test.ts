/** Whose the file is that a command makes an image of: while it is made, and where no image comes of it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { commandProgress } from '#src/cli/command-progress.js';
import { getopt } from '#src/cli/getopt.js';
import { CreateTarget } from '#src/image/create-target.js';
import { type ConvertOptions, convertDisks } from '#src/tools/convert.js';
import { openNewTarget } from '#src/tools/convert-target.js';
import { createUnfinished } from '#src/tools/create.js';
import { planCreation } from '#src/tools/creation.js';
import { openDisk } from '#src/tools/open-disk.js';
import { Cancelled, NO_PROGRESS, type Progress } from '#src/tools/progress.js';
import { BothTools } from '../helpers/both-tools.js';
import { writeMixedDisk } from '../helpers/convert-images.js';
import { runInProcess } from '../helpers/in-process.js';
import { qemuImg, tryQemuIo } from '../helpers/qemu.js';
import { SEED } from '../helpers/random.js';
import { useTempFolder } from '../helpers/temp.js';

const MAIN = fileURLToPath(import.meta.resolve('#src/cli/main.js'));
/** The program before it is bundled, whose modules can be changed from outside. */
const MODULES = fileURLToPath(new URL('../../cli/main.js', import.meta.url));
const DYING_COPIES = new URL('../helpers/dying-copies.js', import.meta.url).href;
const MIB = 1 << 20;
const SIZE = 12 * MIB;

const OPTIONS: Omit<ConvertOptions, 'progress'> = {
  compressed: false,
  sparse: 4096,
  overBacking: false,
  targetIsZero: false,
  salvage: false,
  rate: 0,
  threads: 4,
  bitmaps: [],
  onProblem: () => {},
};

/** Calls `look`, then throws, where a part of the whole is done. */
function stopping(look: () => void = () => {}): Progress {
  return {
    advance: async (fraction) => {
      if (fraction < 0.3) return;
      look();
      throw new Cancelled();
    },
  };
}

describe('files that become images', () => {
  const temp = useTempFolder();

  /** Converts source.raw; answers what was thrown. */
  async function convert(
    format: string,
    options: [string, string][],
    progress: Progress,
  ): Promise<unknown> {
    const source = temp.at('source.raw');
    if (!existsSync(source)) writeMixedDisk(source, SEED, SIZE);
    const disk = await openDisk({ path: source, filename: source, format: 'raw' });
    try {
      const pairs = [['size', String(SIZE)] as [string, string], ...options];
      const creation = planCreation(temp.at('target'), format, pairs);
      const target = await openNewTarget(
        await createUnfinished(creation, NO_PROGRESS, []),
        'unsafe',
      );
      await convertDisks([{ disk, view: null }], target, { ...OPTIONS, progress });
      return undefined;
    } catch (error) {
      return error;
    } finally {
      disk.abandon();
    }
  }

  it('are locked from before they are emptied until they are whole', async () => {
    const refuse = (path: string) => {
      const { stderr } = tryQemuIo('-f', 'raw', '-c', 'write 0 512', path);
      expect(stderr).to.match(/Failed to get (shared )?"write" lock/);
    };
    const data = temp.at('data');
    const pairs = [
      ['size', '1M'],
      ['data_file', data],
    ] as [string, string][];
    const creation = planCreation(temp.at('target'), 'qcow2', pairs);
    const made = await createUnfinished(creation, NO_PROGRESS, []);
    refuse(temp.at('target'));
    refuse(data);
    const target = await openNewTarget(made, 'unsafe');
    refuse(temp.at('target'));
    refuse(data);
    target.prepare(1, new Float64Array(8));
    target.settle();
    target.finish();
    expect(qemuImg('check', temp.at('target'))).to.contain('No errors');
  });

  it('stay where another file has their name by then', () => {
    const target = CreateTarget.open(temp.at('target'), []);
    writeFileSync(temp.at('other'), 'precious');
    renameSync(temp.at('other'), temp.at('target'));
    writeFileSync(temp.at('target (deleted)'), 'precious');
    target.begin();
    target.abandon();
    for (const name of ['target', 'target (deleted)']) {
      expect(readFileSync(temp.at(name), 'utf8')).to.equal('precious');
    }
  });

  it('are made behind links to nothing, and are gone from there', () => {
    mkdirSync(temp.at('folder'));
    symlinkSync('folder/second', temp.at('first'));
    symlinkSync('../third', temp.at('folder/second'));
    CreateTarget.open(temp.at('first'), []).close();
    expect(statSync(temp.at('third')).size).to.equal(0);
    rmSync(temp.at('third'));
    CreateTarget.open(temp.at('first'), []).abandon();
    expect(existsSync(temp.at('third'))).to.equal(false);
    expect(lstatSync(temp.at('folder/second')).isSymbolicLink()).to.equal(true);
  });

  it('are empty where they were there before and the convert is stopped', async () => {
    for (const [format, options] of [
      ['raw', []],
      ['qcow2', []],
      ['qcow2', [['preallocation', 'metadata']]],
      ['qcow2', [['data_file', temp.at('data')]]],
    ] as [string, [string, string][]][]) {
      for (const name of ['real', 'data']) temp.write(name, 'old');
      linkSync(temp.at('real'), temp.at('second'));
      symlinkSync('real', temp.at('target'));
      const { ino } = statSync(temp.at('real'));
      expect(await convert(format, options, stopping())).to.be.instanceOf(Cancelled);
      expect(statSync(temp.at('target')).ino).to.equal(ino);
      expect(statSync(temp.at('second')).size).to.equal(0);
      expect(statSync(temp.at('data')).size).to.equal(options[0]?.[0] === 'data_file' ? 0 : 3);
      for (const name of ['target', 'second', 'real']) rmSync(temp.at(name));
    }
  });

  it('are gone with the data file that was made for them', async () => {
    const options: [string, string][] = [['data_file', temp.at('data')]];
    expect(await convert('qcow2', options, stopping())).to.be.instanceOf(Cancelled);
    expect(readdirSync(temp.path)).to.deep.equal(['source.raw']);
  });

  it('have their space from the start and their size in the end, raw ones', async () => {
    const blocks = () => statSync(temp.at('target')).blocks * 512;
    for (const preallocation of ['falloc', 'full']) {
      const options: [string, string][] = [['preallocation', preallocation]];
      temp.write('target', 'old');
      const look = () => {
        expect(statSync(temp.at('target')).size).to.be.below(SIZE);
        expect(blocks()).to.be.at.least(SIZE);
      };
      expect(await convert('raw', options, stopping(look))).to.be.instanceOf(Cancelled);
      expect([statSync(temp.at('target')).size, blocks()]).to.deep.equal([0, 0]);
      expect(await convert('raw', options, NO_PROGRESS)).to.equal(undefined);
      expect(blocks()).to.be.at.least(SIZE);
      const formats = ['-f', 'raw', '-F', 'raw', temp.at('source.raw'), temp.at('target')];
      expect(qemuImg('compare', ...formats)).to.equal('Images are identical.\n');
    }
  });

  const PRECIOUS = 'precious';

  it('keep what they hold where their backing file cannot be opened', async () => {
    const tools = new BothTools(temp);
    const folder = tools.folder('ours');
    tools.make((path) => {
      qemuImg('create', '-q', '-f', 'qcow2', `${path}/source.qcow2`, '1M');
      writeFileSync(`${path}/junk`, 'no image');
    });
    for (const backing of ['nosuch', 'junk', 'nbd:x']) {
      tools.make((path) => writeFileSync(`${path}/target`, PRECIOUS));
      const words = ['convert', '-O', 'qcow2', '-B', backing, '-F', 'qcow2', 'source.qcow2'];
      const ours = await runInProcess([...words, 'target'], folder);
      expect(ours.status).to.equal(1);
      expect(readFileSync(tools.at('ours', 'target'), 'utf8')).to.equal(PRECIOUS);
      // Of protocols that we do not know the words are our own.
      if (backing !== 'nbd:x') {
        expect(ours).to.deep.equal(tools.run('qemu', [...words, 'target']));
      }
    }
  });

  it('are not what they lie over, or what is read, by whatever name', async () => {
    const at = (name: string) => temp.at(name);
    qemuImg('create', '-q', '-f', 'qcow2', at('base.qcow2'), '1M');
    linkSync(at('base.qcow2'), at('link.qcow2'));
    qemuImg('create', '-q', '-f', 'qcow2', at('other.qcow2'), '1M');
    writeFileSync(at('base.raw'), PRECIOUS);
    truncateSync(at('base.raw'), MIB);
    const contents = () => readdirSync(temp.path).map((name) => [name, readFileSync(at(name))]);
    const before = contents();
    const over = ['-O', 'qcow2', '-B', 'base.qcow2', '-F', 'qcow2'];
    for (const words of [
      ['convert', ...over, 'other.qcow2', 'base.qcow2'],
      ['convert', ...over, 'other.qcow2', 'link.qcow2'],
      ['convert', '-U', '-O', 'raw', 'base.qcow2', 'base.qcow2'],
      ['convert', '-U', '-O', 'qcow2', '-o', 'data_file=link.qcow2', 'base.qcow2', 'new'],
      ['convert', '-U', '-n', '-O', 'qcow2', 'base.qcow2', 'link.qcow2'],
      ['dd', '-U', 'if=base.qcow2', 'of=link.qcow2'],
    ]) {
      const { status, stderr } = await runInProcess(words, temp.path);
      expect(status, words.join(' ')).to.equal(1);
      expect(stderr, words.join(' ')).to.contain('Failed to get "write" lock\n');
    }
    const data = ['-o', 'data_file=base.raw', '-b', 'base.raw', '-F', 'raw', 'new'];
    const { stderr } = await runInProcess(['create', '-f', 'qcow2', ...data], temp.path);
    expect(stderr).to.contain('whose data file is its backing file');
    expect(contents()).to.deep.equal(before);
  });

  it('are gone where a signal comes while space is prepared for them', async () => {
    const source = temp.write('source.raw', '');
    truncateSync(source, 1 << 30);
    const target = temp.at('target');
    for (const format of ['qcow2', 'raw']) {
      const words = ['convert', '-f', 'raw', '-O', format, '-o', 'preallocation=full'];
      const child = spawn('node', [MAIN, ...words, source, target], { stdio: 'ignore' });
      const end = once(child, 'exit');
      while ((statSync(target, { throwIfNoEntry: false })?.size ?? 0) < MIB) await setTimeout(5);
      child.kill('SIGINT');
      expect(await end, format).to.deep.equal([130, null]);
      expect(existsSync(target), format).to.equal(false);
    }
  });

  it('are gone where a thread dies that others wait for', async () => {
    const source = temp.write('source.raw', '');
    truncateSync(source, 64 * MIB);
    // By a rate, so that there are threads.
    const words = ['convert', '-f', 'raw', '-S', '0', '-r', '1G', '-O', 'raw', source];
    const line = ['--import', DYING_COPIES, MODULES, ...words, temp.at('target')];
    const child = spawn('node', line, { stdio: ['ignore', 'ignore', 'pipe'] });
    const end = once(child, 'exit');
    const said = await child.stderr!.setEncoding('utf8').toArray();
    expect(await end).to.deep.equal([1, null]);
    expect(said.join('')).to.contain('a thread of the copy has died');
    expect(existsSync(temp.at('target'))).to.equal(false);
  });
});

describe('commandProgress()', () => {
  it('hears a signal before the last step, however little time has passed, and muted', async () => {
    for (const which of ['whole', 'muted']) {
      const whole = commandProgress(getopt([], []));
      const progress = which === 'muted' ? whole.muted : whole;
      try {
        process.kill(process.pid, 'SIGTERM');
        const error = await progress.advance(1).catch((thrown: unknown) => thrown);
        expect(error).to.be.instanceOf(Cancelled);
      } finally {
        whole.finish();
      }
    }
  });
});
