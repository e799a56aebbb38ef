/** How conversions end that do not come to their end: what is left behind. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { convertDisks, type ConvertOptions } from '#src/tools/convert.js';
import { openNewTarget, openTarget } from '#src/tools/convert-target.js';
import { createUnfinished } from '#src/tools/create.js';
import { planCreation } from '#src/tools/creation.js';
import { openDisk } from '#src/tools/open-disk.js';
import { Cancelled, NO_PROGRESS } from '#src/tools/progress.js';
import { writeMixedDisk } from '../helpers/convert-images.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { qemuImg, tryQemuImg } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

const MAIN = fileURLToPath(import.meta.resolve('#src/cli/main.js'));
const MIB = 1 << 20;
const SIZE = 40 * MIB;

const OPTIONS: ConvertOptions = {
  compressed: false,
  sparse: 4096,
  overBacking: false,
  targetIsZero: false,
  salvage: false,
  rate: 0,
  bitmaps: [],
  threads: 4,
  progress: NO_PROGRESS,
  onProblem: () => {},
};

/** Throws where more than a part of the whole is done. */
const IMPATIENT = {
  advance: async (fraction: number) => {
    if (fraction > 0.3) throw new Cancelled();
  },
};

function ended(child: ChildProcess): Promise<number | NodeJS.Signals | null> {
  return new Promise((resolve) => {
    child.on('exit', (status, signal) => resolve(status ?? signal));
  });
}

describe('convert that does not end well', () => {
  const temp = useTempFolder();
  printSeed();
  beforeEach(() => writeMixedDisk(temp.at('source.raw'), SEED, SIZE));

  const sourceOf = async () => {
    const disk = await openDisk({ ...rawSpec(temp.at('source.raw')) });
    return { disk, view: null };
  };
  const rawSpec = (path: string) => ({ path, filename: path, format: 'raw' });

  const newTarget = async (format: string, ...options: [string, string][]) => {
    const pairs = [['size', String(SIZE)] as [string, string], ...options];
    const creation = planCreation(temp.at('target'), format, pairs);
    return openNewTarget(await createUnfinished(creation, NO_PROGRESS, []), 'unsafe');
  };

  for (const rate of [0, 64 * MIB]) {
    const where = rate === 0 ? 'in this thread' : 'in threads';
    for (const options of [[], [['preallocation', 'metadata']]] as [string, string][][]) {
      it(`leaves no new image where it is cancelled ${where}, ${options.length} options`, async () => {
        for (const format of options.length > 0 ? ['qcow2'] : ['qcow2', 'raw']) {
          const source = await sourceOf();
          const target = await newTarget(format, ...options);
          let error: unknown;
          await convertDisks([source], target, { ...OPTIONS, rate, progress: IMPATIENT }).catch(
            (thrown) => {
              error = thrown;
            },
          );
          source.disk.abandon();
          expect(error).to.be.instanceOf(Cancelled);
          expect(existsSync(temp.at('target')), format).to.equal(false);
        }
      });
    }
  }

  it('leaves an image that was there before', async () => {
    qemuImg('create', '-q', '-f', 'qcow2', temp.at('target'), '40M');
    const source = await sourceOf();
    const path = temp.at('target');
    const target = await openTarget({ path, filename: path, format: 'qcow2' }, 'unsafe', []);
    let error: unknown;
    await convertDisks([source], target, { ...OPTIONS, progress: IMPATIENT }).catch((thrown) => {
      error = thrown;
    });
    source.disk.abandon();
    expect(error).to.be.instanceOf(Cancelled);
    expect(tryQemuImg('check', path).status).to.be.oneOf([0, 3]);
  });

  it('says where a file may not become so large, and leaves none', () => {
    for (const format of ['qcow2', 'raw']) {
      const words = ['convert', '-f', 'raw', '-S', '0', '-O', format, 'source.raw', 'target'];
      const script = `trap '' XFSZ; ulimit -f 8192; exec node ${MAIN} ${words.join(' ')}`;
      const { status, stderr } = spawnSync('bash', ['-c', script], {
        cwd: temp.path,
        encoding: 'utf8',
      });
      expect(status, stderr).to.equal(1);
      expect(stderr).to.match(/error while writing at byte \d+: /);
      expect(existsSync(temp.at('target')), format).to.equal(false);
    }
  });

  it('ends with a signal, and leaves no image', async () => {
    const words = ['convert', '-f', 'raw', '-O', 'qcow2', '-r', '8M', 'source.raw', 'target'];
    const child = spawn('node', [MAIN, ...words], { cwd: temp.path, stdio: 'ignore' });
    const end = ended(child);
    while (!existsSync(temp.at('target'))) await setTimeout(20);
    await setTimeout(200);
    child.kill('SIGINT');
    expect(await end).to.not.equal(0);
    expect(existsSync(temp.at('target'))).to.equal(false);
  });

  it('leaves nothing that looks whole where it is killed', async () => {
    const random = new Random(SEED);
    for (let round = 0; round < 12; round++) {
      const format = random.pick(['raw', 'qcow2']);
      const more =
        format === 'raw' ? [] : random.pick([[], ['-c'], ['-o', 'preallocation=metadata']]);
      const words = ['convert', '-f', 'raw', '-O', format, ...more, '-r', '40M'];
      const line = [MAIN, ...words, 'source.raw', 'target'];
      const child = spawn('node', line, { cwd: temp.path, stdio: 'ignore' });
      const end = ended(child);
      await setTimeout(150 + random.below(1200));
      child.kill('SIGKILL');
      const how = await end;
      const said = `${words.join(' ')}, round ${round}: ${how}`;
      if (existsSync(temp.at('target')) && how !== 0) checkPartial(format, said);
      rmSync(temp.at('target'), { force: true });
    }
  });

  /** Either it is no image, or all of it is there: the signal came after the last write. */
  function checkPartial(format: string, said: string): void {
    const path = temp.at('target');
    const isWhole =
      format === 'raw'
        ? statSync(path).size === SIZE
        : readFileSync(path).subarray(0, 4).equals(Buffer.from('QFI\xfb', 'latin1'));
    if (!isWhole) return;
    const formats = ['-f', 'raw', '-F', format];
    const { stdout } = tryQemuImg('compare', ...formats, temp.at('source.raw'), path);
    expect(stdout, said).to.equal('Images are identical.\n');
  }
});
