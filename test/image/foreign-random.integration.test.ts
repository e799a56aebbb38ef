/**
 * Images of every format and kind that QEMU makes, of odd sizes, with random writes: what we read of them is what QEMU
 * reads. QCOW2FS_FUZZ_COUNT asks for more of them, QCOW2FS_SEED for the same.
 */
import { readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { expect } from 'chai';
import { runInProcess } from '../helpers/in-process.js';
import { qemuImg, tryQemuImg, tryQemuIo } from '../helpers/qemu.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { readImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

/** Of each kind. */
const COUNT = Math.ceil(Number(process.env.QCOW2FS_FUZZ_COUNT ?? 20) / 20);
const MIB = 1 << 20;
const GIB = 2 ** 30;

/** A kind of image. `whole`: its file is as large as the disk. */
interface Kind {
  readonly format: string;
  readonly options?: string;
  readonly whole?: true;
  /** Written from start to end alone, by `convert`. */
  readonly stream?: true;
  /** Bytes of the largest disk. */
  readonly most?: number;
}

const KINDS: readonly Kind[] = [
  { format: 'qed', most: 64 * 2 ** 40 },
  { format: 'qed', options: 'cluster_size=4k,table_size=1' },
  { format: 'qcow' },
  { format: 'qcow', stream: true },
  { format: 'vdi', most: 1024 * GIB },
  { format: 'vdi', options: 'static=on', whole: true },
  { format: 'vpc' },
  { format: 'vpc', options: 'force_size=on', most: 2040 * GIB },
  { format: 'vpc', options: 'subformat=fixed,force_size=on', whole: true },
  { format: 'vmdk', most: 32 * GIB },
  { format: 'vmdk', options: 'zeroed_grain=on' },
  { format: 'vmdk', options: 'subformat=streamOptimized', stream: true },
  { format: 'vmdk', options: 'subformat=twoGbMaxExtentSparse', most: 40 * GIB },
  { format: 'vmdk', options: 'subformat=twoGbMaxExtentFlat', whole: true },
  { format: 'vmdk', options: 'subformat=monolithicFlat', whole: true },
  { format: 'vhdx', options: 'block_size=1M,log_size=1M', most: 4 * 2 ** 40 },
  { format: 'vhdx', options: 'block_size=8M,block_state_zero=off' },
  { format: 'vhdx', options: 'subformat=fixed', whole: true },
  // QEMU 7.2 ends with an assertion at a run of 1 TiB.
  { format: 'parallels', options: 'cluster_size=64k', most: 64 * GIB },
  { format: 'parallels' },
];

describe('random images of other formats', () => {
  const temp = useTempFolder();
  printSeed();

  /** Creates an image of `size` bytes, and writes to some places of it; null where QEMU makes none so large. */
  function make(random: Random, kind: Kind, size: number): string | null {
    const { format, options, stream } = kind;
    const how = options === undefined ? [] : ['-o', options];
    const path = temp.at(`disk.${format}`);
    const created = stream === true ? temp.at('source') : path;
    const as = stream === true ? ['-f', 'raw'] : ['-f', format, ...how];
    if (tryQemuImg('create', '-q', ...as, created, String(size)).status !== 0) return null;
    const writes: string[] = [];
    const sectors = Math.floor(size / 512);
    for (let n = random.below(12); n > 0 && sectors > 0; n--) {
      const start = random.chance(0.2) ? 0 : random.below(sectors);
      const most = Math.min(sectors - start, 1 << random.below(12));
      const [at, length] = [start * 512, (1 + random.below(most)) * 512];
      writes.push(
        `write ${random.chance(0.3) ? '-z' : `-P ${1 + random.below(255)}`} ${at} ${length}`,
      );
    }
    writes.push(`write -P 9 ${Math.max(0, sectors - 1) * 512} ${sectors === 0 ? 0 : 512}`);
    tryQemuIo(...as.slice(0, 2), ...writes.flatMap((write) => ['-c', write]), created);
    if (stream === true) {
      // A qcow image is whole, though QEMU 7.2 says that it failed.
      tryQemuImg('convert', '-c', '-f', 'raw', '-O', format, ...how, created, path);
    }
    // Of a small QED image with small tables, QEMU 7.2 says that they lie behind its end.
    return tryQemuImg('info', '-f', format, path).status === 0 ? path : null;
  }

  /** What both make of it with `convert`: files that are sparse, where they are large. */
  async function compareConverted(path: string, format: string): Promise<void> {
    const ours = temp.at('ours.raw');
    const words = ['convert', '-f', format, '-O', 'raw', path, ours];
    expect(await runInProcess(words, temp.path)).to.deep.equal({
      status: 0,
      stdout: '',
      stderr: '',
    });
    // QEMU does not know where a VHDX image has holes: only its end is compared.
    const { size } = statSync(ours);
    const offset = format === 'vhdx' ? Math.max(0, size - 32 * MIB) : 0;
    const window = `driver=raw,offset=${offset},size=${size - offset}`;
    const theirs = `${window},file.driver=${format},file.file.filename=${path}`;
    const text = qemuImg('compare', '--image-opts', theirs, `${window},file.filename=${ours}`);
    expect(text).to.match(/identical/);
  }

  async function sameMap(path: string, format: string): Promise<void> {
    // QEMU does not know where a VHDX image has what.
    if (format === 'vhdx') return;
    const words = ['map', '--output=json', '-f', format, path];
    const { status, stdout, stderr } = tryQemuImg(...words);
    expect(await runInProcess(words, temp.path), words.join(' ')).to.deep.equal({
      status,
      stdout,
      stderr,
    });
  }

  function clean(): void {
    for (const name of readdirSync(temp.path)) rmSync(temp.at(name));
  }

  function oddSize(random: Random): number {
    const near = random.pick([512, 4096, 64 << 10, MIB, 2 * MIB, 8 * MIB]);
    const around = near + random.pick([-512, 0, 512, 1024]);
    return Math.max(512, around + random.below(3) * near);
  }

  for (const [index, kind] of KINDS.entries()) {
    const { format, options = '', stream, whole, most } = kind;
    const name = `${format} ${options}${stream === true ? ' compressed' : ''}`;
    it(`${name}: small and odd`, async () => {
      const random = new Random(SEED + index);
      for (let n = 0; n < COUNT; n++) {
        const size = oddSize(random);
        const path = make(random, kind, size);
        if (path === null) continue;
        const theirs = temp.at('theirs.raw');
        qemuImg('convert', '-f', format, '-O', 'raw', path, theirs);
        const isSame = readImage(path, { format }).equals(readFileSync(theirs));
        expect(isSame, `${size} bytes, image ${n}`).to.equal(true);
        await sameMap(path, format);
        await compareConverted(path, format);
        clean();
      }
    });
    if (whole === true || stream === true) continue;
    it(`${name}: beyond 4 GiB`, async () => {
      const random = new Random(SEED + 100 + index);
      for (let n = 0; n < COUNT; n++) {
        const path = make(random, kind, 4 * GIB + oddSize(random));
        if (path === null) continue;
        await sameMap(path, format);
        await compareConverted(path, format);
        clean();
      }
    });
    if (most === undefined) continue;
    it(`${name}: as large as can be`, async () => {
      const path = make(new Random(SEED + 200 + index), kind, most)!;
      await sameMap(path, format);
      const { status, stdout } = tryQemuImg('info', '--output=json', '-f', format, path);
      const ours = await runInProcess(['info', '--output=json', '-f', format, path], temp.path);
      expect(ours).to.deep.include({ status, stdout });
    });
  }

  for (const { format, options } of KINDS.filter(({ stream }) => stream !== true)) {
    it(`${format} ${options ?? ''}: a disk of no bytes`, async () => {
      const path = temp.at('empty');
      const how = options === undefined ? [] : ['-o', options];
      if (tryQemuImg('create', '-q', '-f', format, ...how, path, '0').status !== 0) return;
      for (const command of ['info', 'map', 'check']) {
        const words = [command, '-f', format, path];
        if (format === 'vhdx' && command === 'map') continue;
        const { status, stdout, stderr } = tryQemuImg(...words);
        // It crashes, or does not open what it has made.
        if (command === 'info' && status !== 0) return;
        expect(await runInProcess(words, temp.path), words.join(' ')).to.deep.equal({
          status,
          stdout,
          stderr,
        });
      }
      const read = await runInProcess(['convert', '-f', format, '-O', 'raw', path, 'r'], temp.path);
      expect(read.stderr).to.equal('');
      expect(readFileSync(temp.at('r'))).to.have.length(0);
    });
  }
});
