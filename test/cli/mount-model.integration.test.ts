/**
 * Random use of a mount that is written to, against a shadow copy in memory: reads, writes (direct and
 * not), holes, zeroes, truncation, snapshots, reverts and remounts; QEMU judges what comes of it.
 */
import {
  closeSync,
  constants,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { makeLuksImage } from '../helpers/encrypted.js';
import { imageWords, SECRET } from '../helpers/image-words.js';
import { noMounts, type Sandbox, skipSuite, useSandbox } from '../helpers/mount.js';
import { qemuImg, qemuRead } from '../helpers/qemu.js';
import { printSeed, Random, SEED } from '../helpers/random.js';

const SECTOR = 512;
const SIZE = 4 << 20;
/** More for long runs. */
const STEPS = Number(process.env.QCOW2FS_FUZZ_STEPS ?? 70);

interface Kind {
  readonly name: string;
  readonly options: string;
  readonly format?: 'qed' | 'qcow';
  readonly backing?: boolean;
  readonly snapshots?: boolean;
  readonly overlay?: boolean;
  readonly luks?: boolean;
}

const KINDS: readonly Kind[] = [
  { name: 'version 3', options: 'compat=1.1' },
  { name: 'version 2 over a backing file', options: 'compat=0.10', backing: true },
  { name: 'lazy refcounts, 8-bit', options: 'lazy_refcounts=on,refcount_bits=8' },
  { name: 'clusters of 512 over a backing file', options: 'cluster_size=512', backing: true },
  { name: 'subclusters over a backing file', options: 'extended_l2=on', backing: true },
  {
    name: 'a data file over a backing file',
    options: 'data_file=@',
    backing: true,
    snapshots: false,
  },
  { name: 'a raw data file', options: 'data_file=@,data_file_raw=on', snapshots: false },
  { name: 'LUKS, subclusters', options: 'extended_l2=on', luks: true },
  { name: 'QED', format: 'qed', options: 'cluster_size=4k', backing: true, snapshots: false },
  { name: 'qcow', format: 'qcow', options: '', backing: true, snapshots: false },
  { name: 'an overlay', options: 'compat=1.1', overlay: true },
];

describe('a mount that is written to at random', () => {
  skipSuite(noMounts);
  printSeed();
  const sandbox = useSandbox();

  for (const kind of KINDS) {
    it(`is what a shadow copy and QEMU say: ${kind.name}`, async function () {
      this.timeout(900_000);
      const random = new Random(SEED);
      const image = sandbox().path('disk.qcow2');
      const disk = Buffer.alloc(SIZE);
      const below: string[] = [];
      if (kind.backing === true) {
        const base = sandbox().path('base.raw');
        const bytes = random.bytes(SIZE - 5 * SECTOR);
        writeFileSync(base, bytes);
        bytes.copy(disk);
        below.push('-b', base, '-F', 'raw');
      }
      const how = kind.options.replace('@', sandbox().path('data.raw'));
      const { format = 'qcow2' as const, luks = false } = kind;
      const words = how === '' ? [] : ['-o', how];
      if (luks) await makeLuksImage(image, SIZE, `encrypt.iter-time=0,${how}`);
      else qemuImg('create', '-f', format, ...words, ...below, image, `${SIZE}`);
      const written = kind.overlay === true ? sandbox().path('over.qcow2') : image;
      const options = ['-o', kind.overlay === true ? `overlay=${written}` : 'rw'];
      if (luks) options.push(...SECRET, '-o', 'key-secret=s');
      const snapshots = kind.snapshots !== false;
      const paths = { image, written, options, snapshots, format };
      const model = new MountModel(sandbox(), paths, random, disk);
      await model.run();
    });
  }
});

interface Paths {
  readonly image: string;
  /** The file that is written to. */
  readonly written: string;
  readonly options: string[];
  readonly snapshots: boolean;
  readonly format: 'qcow2' | 'qed' | 'qcow';
}

class MountModel {
  readonly #sandbox: Sandbox;
  readonly #paths: Paths;
  readonly #random: Random;
  #disk: Buffer;
  #target = '';
  readonly #snapshots = new Map<string, Buffer>();

  constructor(sandbox: Sandbox, paths: Paths, random: Random, disk: Buffer) {
    this.#sandbox = sandbox;
    this.#paths = paths;
    this.#random = random;
    this.#disk = disk;
  }

  async run(): Promise<void> {
    await this.#mount();
    for (let step = 0; step < STEPS; step++) {
      await this.#change();
      const found = readFileSync(this.#file);
      expect(found.length, `size at step ${step}`).to.equal(this.#disk.length);
      const at = found.equals(this.#disk) ? -1 : found.findIndex((b, n) => b !== this.#disk[n]);
      expect(at, `first wrong byte at step ${step}`).to.equal(-1);
      if (this.#random.chance(0.04)) await this.#remount();
    }
    await this.#remount();
    await this.#sandbox.unmount(this.#target);
  }

  get #file(): string {
    return join(this.#target, 'disk.raw');
  }

  get #folder(): string {
    return join(this.#target, 'disk.snapshots');
  }

  async #mount(): Promise<void> {
    const { image, options } = this.#paths;
    this.#target = await this.#sandbox.mount(image, { options });
  }

  /** Unmounts, lets QEMU look, and mounts again. */
  async #remount(): Promise<void> {
    await this.#sandbox.unmount(this.#target);
    const { written, format } = this.#paths;
    // QEMU has no checks of qcow.
    if (format !== 'qcow') qemuImg('check', ...imageWords(written));
    expect(qemuRead(written).equals(this.#disk), 'what QEMU reads').to.equal(true);
    for (const [name, held] of this.#snapshots) {
      const found = qemuRead(written, name);
      const shared = Math.min(found.length, held.length);
      expect(found.subarray(0, shared).equals(held.subarray(0, shared)), name).to.equal(true);
    }
    await this.#mount();
  }

  async #change(): Promise<void> {
    const random = this.#random;
    const units = this.#disk.length / SECTOR;
    const first = random.below(units);
    const most = Math.min(units - first, random.chance(0.2) ? units : 256);
    const [offset, length] = [first * SECTOR, (1 + random.below(most)) * SECTOR];
    const what = random.below(this.#paths.snapshots ? 14 : 12);
    if (what < 6) this.#write(offset, length);
    else if (what === 6) this.#write(offset + random.below(SECTOR), 1 + random.below(SECTOR));
    else if (what === 7) await this.#erase('--punch-hole', offset, length);
    else if (what === 8) await this.#erase('--zero-range', offset, length);
    else if (what === 9) await this.#fallocate('--keep-size', offset, length);
    else if (what === 10) this.#resize();
    else if (what === 11) this.#readBack(offset, length);
    else await this.#changeSnapshots();
  }

  #write(offset: number, length: number): void {
    const random = this.#random;
    const bytes = random.chance(0.2) ? Buffer.alloc(length) : random.bytes(length);
    const flags = random.pick([0, 0, constants.O_SYNC, constants.O_DIRECT]);
    const end = offset + length;
    if (end > this.#disk.length && this.#paths.format === 'qcow') return;
    const fd = openSync(this.#file, constants.O_RDWR | flags);
    try {
      // Past the end, the disk grows to whole sectors.
      expect(writeSync(fd, bytes, 0, length, offset)).to.equal(length);
      if (random.chance(0.2)) fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    const size = Math.max(this.#disk.length, Math.ceil(end / SECTOR) * SECTOR);
    this.#disk = Buffer.concat([this.#disk, Buffer.alloc(size - this.#disk.length)]);
    bytes.copy(this.#disk, offset);
  }

  #readBack(offset: number, length: number): void {
    const fd = openSync(this.#file, constants.O_RDONLY);
    const bytes = Buffer.alloc(length);
    try {
      expect(readSync(fd, bytes, 0, length, offset)).to.equal(length);
    } finally {
      closeSync(fd);
    }
    expect(bytes.equals(this.#disk.subarray(offset, offset + length))).to.equal(true);
  }

  async #erase(how: string, offset: number, length: number): Promise<void> {
    await this.#fallocate(how, offset, length);
    this.#disk.fill(0, offset, offset + length);
  }

  async #fallocate(how: string, offset: number, length: number): Promise<void> {
    await this.#sandbox.must('fallocate', [how, '-o', `${offset}`, '-l', `${length}`, this.#file]);
  }

  #resize(): void {
    const { format } = this.#paths;
    // QED only grows, qcow not even that.
    if (format === 'qcow') return;
    const least = format === 'qed' ? this.#disk.length : SECTOR;
    const size = least + SECTOR * this.#random.below((SIZE * 1.5 - least) / SECTOR + 1);
    truncateSync(this.#file, size);
    expect(statSync(this.#file).size).to.equal(size);
    const resized = Buffer.alloc(size);
    this.#disk.copy(resized);
    this.#disk = resized;
  }

  async #changeSnapshots(): Promise<void> {
    const random = this.#random;
    const names = [...this.#snapshots.keys()];
    const shown = readdirSync(this.#folder).filter((name) => name.endsWith('.raw'));
    expect(shown.sort()).to.deep.equal(names.map((name) => `${name}.raw`).sort());
    if (names.length === 0 || (names.length < 3 && random.chance(0.4))) {
      const name = `s${random.below(1e9)}`;
      await this.#sandbox.must('touch', [join(this.#folder, `${name}.raw`)]);
      this.#snapshots.set(name, Buffer.from(this.#disk));
      return;
    }
    const name = random.pick(names);
    const path = join(this.#folder, `${name}.raw`);
    const held = this.#snapshots.get(name)!;
    expect(readFileSync(path).equals(held), `snapshot ${name}`).to.equal(true);
    switch (random.below(3)) {
      case 0:
        unlinkSync(path);
        this.#snapshots.delete(name);
        break;
      case 1: {
        const other = `r${random.below(1e9)}`;
        renameSync(path, join(this.#folder, `${other}.raw`));
        this.#snapshots.delete(name);
        this.#snapshots.set(other, held);
        break;
      }
      default: {
        const { status, stderr } = await this.#sandbox.cli(['snapshot', '-a', name, this.#target]);
        expect(status, stderr).to.equal(0);
        this.#disk = Buffer.from(held);
      }
    }
  }
}
