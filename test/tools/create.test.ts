/** Making images: what becomes of a file that is there, of one that was not, and of another's image. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { expect } from 'chai';
import { describeError, ImageError } from '#src/errors.js';
import { formatImage, planImage } from '#src/image/qcow2/create.js';
import type { Qcow2Options } from '#src/image/qcow2/create-options.js';
import { createImage } from '#src/tools/create.js';
import { type CreateDetails, completeCreation, planCreation } from '#src/tools/creation.js';
import { Cancelled, type Progress } from '#src/tools/progress.js';
import { crashStates } from '../helpers/crash-states.js';
import { qemuImg, qemuIo, tryQemuIo } from '../helpers/qemu.js';
import { pattern, Random, SEED } from '../helpers/random.js';
import { RecordingStorage } from '../helpers/recording-storage.js';
import { useTempFolder } from '../helpers/temp.js';

const MB = 1 << 20;
const NOTHING: Progress = { advance: async () => {} };

/** Options as `-o` has them, without commas in their values. */
function pairsOf(options: string): [string, string | undefined][] {
  return options === ''
    ? []
    : options.split(',').map((option) => option.split('=') as [string, string | undefined]);
}

describe('createImage()', () => {
  const temp = useTempFolder();

  async function create(
    path: string,
    format: string,
    options: string,
    details: CreateDetails = { size: MB },
    progress = NOTHING,
  ): Promise<void> {
    const creation = completeCreation(planCreation(path, format, pairsOf(options)), details);
    await createImage(creation, progress);
  }

  async function expectFailure(message: RegExp, work: Promise<void>): Promise<void> {
    const error = await work.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).to.be.instanceOf(ImageError);
    expect(describeError(error)).to.match(message);
  }

  /** What an image cannot be, found out before anything is written. */
  const WRONG = ['cluster_size=1000', 'compat=9', 'refcount_bits=3', 'lazy_refcounts=on,compat=v2'];

  it('leaves a file as it is where the options are wrong', async () => {
    const path = temp.write('old', 'precious');
    const data = temp.write('data', 'bytes');
    for (const options of WRONG) await expectFailure(/./, create(path, 'qcow2', options));
    await expectFailure(/Cluster size/, create(path, 'qcow2', `data_file=${data},cluster_size=1`));
    await expectFailure(/Unsupported preallocation/, create(path, 'raw', 'preallocation=metadata'));
    expect(readFileSync(path, 'utf8')).to.equal('precious');
    expect(readFileSync(data, 'utf8')).to.equal('bytes');
  });

  it('makes no file where the options are wrong', async () => {
    const data = temp.at('data');
    for (const options of WRONG) await expectFailure(/./, create(temp.at('new'), 'qcow2', options));
    const both = `data_file=${data},cluster_size=1`;
    await expectFailure(/Cluster size/, create(temp.at('new'), 'qcow2', both));
    await expectFailure(/too large/, create(temp.at('new'), 'raw', '', { size: 2 ** 62 }));
    expect(readdirSync(temp.path)).to.deep.equal([]);
  });

  it('makes no QED image that QEMU makes and cannot open', async () => {
    const path = temp.write('old', 'precious');
    const refused = /table size 1 makes images that QEMU cannot open \(table_size=2 at least\)$/;
    for (const size of [4096, 65_536]) {
      const cluster = `cluster_size=${size}`;
      await expectFailure(refused, create(path, 'qed', `${cluster},table_size=1`));
      await create(temp.at('new'), 'qed', `${cluster},table_size=2`);
      qemuImg('check', '-q', temp.at('new'));
    }
    expect(readFileSync(path, 'utf8')).to.equal('precious');
  });

  it('replaces what a file held, all of it', async () => {
    for (const format of ['raw', 'qcow2']) {
      const path = temp.write('old', pattern(3, 3 * MB));
      await create(path, format, '');
      const fresh = temp.at('fresh');
      qemuImg('create', '-q', '-f', format, fresh, '1M');
      expect(readFileSync(path).equals(readFileSync(fresh)), format).to.equal(true);
    }
  });

  it('follows links, and removes what they lead to where it made that', async () => {
    symlinkSync('behind', temp.at('link'));
    await expectFailure(/Cluster size/, create(temp.at('link'), 'qcow2', 'cluster_size=1'));
    expect(lstatSync(temp.at('link')).isSymbolicLink()).to.equal(true);
    expect(existsSync(temp.at('behind'))).to.equal(false);
    await create(temp.at('link'), 'qcow2', '');
    expect(lstatSync(temp.at('link')).isSymbolicLink()).to.equal(true);
    expect(qemuImg('check', temp.at('behind'))).to.contain('No errors');
  });

  it('never writes over its backing file, by whatever name', async () => {
    const base = temp.at('base');
    qemuImg('create', '-q', '-f', 'qcow2', base, '1M');
    qemuIo(base, 'write -P 7 0 64k');
    qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', temp.at('middle'));
    linkSync(base, temp.at('other-name'));
    symlinkSync('base', temp.at('link'));
    const before = readFileSync(base);
    const same = /same filename as the backing file/;
    for (const [target, backingFile] of [
      ['base', base],
      ['base', temp.at('other-name')],
      ['link', 'base'],
      ['base', 'middle'],
    ] as const) {
      const details = { backingFile, backingFormat: 'qcow2' };
      await expectFailure(same, create(temp.at(target), 'qcow2', '', details));
    }
    expect(readFileSync(base).equals(before)).to.equal(true);
  });

  it('refuses a data file that is the image itself', async () => {
    const path = temp.write('old', 'precious');
    linkSync(path, temp.at('other-name'));
    for (const name of ['old', 'other-name', 'new']) {
      const target = name === 'new' ? temp.at('new') : path;
      const work = create(target, 'qcow2', `data_file=${temp.at(name)}`);
      await expectFailure(/Failed to get shared "resize" lock/, work);
    }
    expect(readFileSync(path, 'utf8')).to.equal('precious');
    expect(existsSync(temp.at('new'))).to.equal(false);
  });

  it('refuses what another process has open', async () => {
    const path = temp.at('used');
    qemuImg('create', '-q', '-f', 'qcow2', path, '1M');
    const before = readFileSync(path);
    for (const words of [[], ['-r']]) {
      const holder = await holding(path, words);
      try {
        for (const [format, options, target] of [
          ['qcow2', '', path],
          ['raw', '', path],
          ['qcow2', `data_file=${path}`, temp.at('new')],
        ] as const) {
          await expectFailure(/Failed to get "write" lock/, create(target, format, options));
        }
      } finally {
        holder.stdin!.end('quit\n');
        await once(holder, 'exit');
      }
    }
    expect(readFileSync(path).equals(before)).to.equal(true);
    expect(readdirSync(temp.path)).to.deep.equal(['used']);
  });

  /** qemu-io with the image open, once it is. */
  async function holding(path: string, words: readonly string[]): Promise<ChildProcess> {
    const child = spawn('qemu-io', [...words, path], { stdio: ['pipe', 'pipe', 'inherit'] });
    child.stdin!.write('length\n');
    await once(child.stdout!, 'data');
    return child;
  }

  it('keeps others out while it writes', async () => {
    for (const format of ['raw', 'qcow2']) {
      const path = temp.at(`${format}.img`);
      let refused = 0;
      const progress = {
        advance: async () => {
          const { stderr } = tryQemuIo('-f', 'raw', '-c', 'write 0 512', path);
          if (/Failed to get (shared )?"write" lock/.test(stderr)) refused++;
          // No header yet: nobody takes it for an image.
          const start = readFileSync(path).subarray(0, 4).toString('latin1');
          expect(start).to.be.oneOf(['', '\0\0\0\0']);
        },
      };
      await create(path, format, 'preallocation=full', { size: 6 * MB }, progress);
      expect(refused).to.equal(3);
    }
    expect(qemuImg('check', temp.at('qcow2.img'))).to.contain('No errors');
  });

  it('leaves nothing where it is stopped', async () => {
    const stop = {
      advance: async (fraction: number) => {
        if (fraction > 0) throw new Cancelled();
      },
    };
    const old = temp.write('old', 'bytes');
    for (const [format, options] of [
      ['raw', 'preallocation=full'],
      ['qcow2', 'preallocation=full'],
      ['qcow2', `preallocation=full,data_file=${temp.at('data')}`],
    ] as const) {
      for (const path of [temp.at('new'), old]) {
        const work = create(path, format, options, { size: 9 * MB }, stop);
        const error = await work.catch((reason: unknown) => reason);
        expect(error).to.be.instanceOf(Cancelled);
      }
      expect(readdirSync(temp.path)).to.deep.equal(['old']);
    }
    expect(statSync(old).size).to.equal(0);
  });

  it('makes images on block devices', async function () {
    const host = temp.write('host', pattern(9, 8 * MB));
    const made = spawnSync('losetup', ['-f', '--show', host], { encoding: 'utf8' });
    if (made.status !== 0) {
      console.log(`      skipped: losetup: ${made.stderr?.trim()}`);
      this.skip();
    }
    const device = made.stdout.trim();
    try {
      await expectFailure(/Cannot grow device files/, create(device, 'raw', '', { size: 9 * MB }));
      const tooLarge = create(device, 'qcow2', 'preallocation=metadata', { size: 8 * MB });
      await expectFailure(/Cannot grow device files/, tooLarge);
      const full = create(device, 'qcow2', 'preallocation=full');
      await expectFailure(/unsupported for this non-regular file/, full);
      await expectFailure(/Invalid parameter 'nocow'/, create(device, 'raw', 'nocow=on'));
      expect(readFileSync(device).equals(pattern(9, 8 * MB))).to.equal(true);
      for (const options of ['', 'preallocation=metadata', 'cluster_size=512,refcount_bits=1']) {
        await create(device, 'qcow2', options, { size: 4 * MB });
        expect(qemuImg('check', device), options).to.contain('No errors');
        qemuIo(device, 'read -P 0 0 4M', 'write -P 5 1M 70k', 'read -P 5 1M 70k');
        expect(qemuImg('check', device), options).to.contain('No errors');
      }
      await create(device, 'raw', '');
      expect(JSON.parse(qemuImg('info', '--output=json', device)).format).to.equal('raw');
      await create(temp.at('image'), 'qcow2', `data_file=${device}`, { size: 8 * MB });
      qemuIo(temp.at('image'), 'write -P 5 7M 1M', 'read -P 5 7M 1M', 'read -P 0 0 7M');
    } finally {
      execFileSync('losetup', ['-d', device]);
    }
  });

  it('refuses pipes and folders, and does not wait for them', async () => {
    execFileSync('mkfifo', [temp.at('pipe')]);
    mkdirSync(temp.at('folder'));
    for (const format of ['raw', 'qcow2']) {
      await expectFailure(/Could not resize file/, create(temp.at('pipe'), format, ''));
      await expectFailure(/Is a directory/, create(temp.at('folder'), format, ''));
    }
    await expectFailure(/Cannot grow device files/, create('/dev/null', 'raw', ''));
    await create('/dev/null', 'raw', '', { size: 0 });
  });
});

describe('formatImage(), where the power fails', () => {
  const names = { backingFile: 'x'.repeat(900), backingFormat: 'raw' };
  const images: Record<string, Qcow2Options> = {
    plain: { size: 1 << 30 },
    'a header longer than a sector': { size: MB, ...names },
    'metadata preallocated': { size: MB, clusterSize: 512, preallocation: 'metadata' },
    'fully preallocated': { size: MB, clusterSize: 4096, preallocation: 'full' },
  };
  for (const [name, options] of Object.entries(images)) {
    for (const blank of [true, false]) {
      it(`${name}${blank ? '' : ', on a device'}: there is no image, or a whole one`, async () => {
        const plan = planImage(options);
        const size = plan.layout.fileSize;
        const device = () => Buffer.concat([Buffer.alloc(512), pattern(4, size - 512)]);
        const storage = new RecordingStorage(blank ? new Uint8Array() : device(), 'new');
        await formatImage(storage, plan, { blank, advance: async () => {} });
        const whole = Buffer.from(storage.bytes);
        let images = 0;
        for (const { bytes, description } of crashStates(
          storage.recording,
          150,
          new Random(SEED),
        )) {
          const state = Buffer.from(bytes);
          if (state.subarray(0, 4).toString('latin1') !== 'QFI\xfb') continue;
          images++;
          expect(state.equals(whole), description).to.equal(true);
        }
        expect(images).to.be.at.least(1);
      });
    }
  }
});
