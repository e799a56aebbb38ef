/** `diff`, and `NAME.changed.json` in a mount, held against the bytes that QEMU reads. */
import { spawnSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { CLI, noMounts, skipSuite, useSandbox } from '../helpers/mount.js';
import { put } from '../helpers/mount-write.js';
import { AES_OPTIONS } from '../helpers/encrypted.js';
import { imageWords, SECRET } from '../helpers/image-words.js';
import { qemuImg, qemuIo, qemuRead } from '../helpers/qemu.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { useTempFolder } from '../helpers/temp.js';

const SECTOR = 512;
const KIB = 1024;

interface Extent {
  readonly start: number;
  readonly length: number;
  readonly zero: boolean;
}

function qcow2fs(...words: string[]) {
  return spawnSync(process.execPath, [CLI, ...words], { encoding: 'utf8' });
}

function diff(...words: string[]): Extent[] {
  const { status, stdout, stderr } = qcow2fs('diff', '--output=json', ...words);
  expect(stderr).to.equal('');
  expect(status).to.equal(0);
  return JSON.parse(stdout) as Extent[];
}

/** The sectors that differ, by their bytes. */
function sectors(first: Buffer, second: Buffer): number[] {
  const differing: number[] = [];
  const size = Math.max(first.length, second.length);
  const [one, other] = [Buffer.alloc(size), Buffer.alloc(size)];
  first.copy(one);
  second.copy(other);
  for (let at = 0; at < size; at += SECTOR) {
    if (one.compare(other, at, at + SECTOR, at, at + SECTOR) !== 0) differing.push(at / SECTOR);
  }
  return differing;
}

function sectorsOf(extents: readonly Extent[]): number[] {
  return extents.flatMap(({ start, length }) =>
    Array.from({ length: length / SECTOR }, (_, n) => start / SECTOR + n),
  );
}

function randomWrites(random: Random, count: number, size: number): string[] {
  return Array.from({ length: count }, () => {
    const length = SECTOR * (1 + random.below(200));
    const at = SECTOR * random.below((size - length) / SECTOR);
    const what = random.pick(['write -P 1', 'write -P 2', 'write -z', 'write -z -u', 'discard']);
    return `${what} ${at} ${length}`;
  });
}

/** What must be true of the extents between two disks, by bytes and by maps. */
function expectTrue(exact: Extent[], maps: Extent[], first: Buffer, second: Buffer): void {
  const truth = sectors(first, second);
  expect(sectorsOf(exact)).to.deep.equal(truth);
  const told = new Set(sectorsOf(maps));
  expect(truth.filter((sector) => !told.has(sector))).to.deep.equal([]);
  for (const { start, length, zero } of [...exact, ...maps]) {
    const held = second.subarray(start, start + length);
    if (zero) expect(held.every((byte) => byte === 0)).to.equal(true);
  }
}

describe('qcow2fs diff', () => {
  printSeed();
  const temp = useTempFolder();
  const kinds = ['compat=0.10', 'cluster_size=512', 'extended_l2=on'];

  for (const options of kinds) {
    it(`finds what differs between snapshots, disk and images of a chain: ${options}`, () => {
      const random = new Random(SEED);
      const size = 3 * KIB * KIB;
      const [base, top] = [temp.at('base.qcow2'), temp.at('top.qcow2')];
      const chosen = options === '' ? [] : ['-o', options];
      qemuImg('create', '-q', '-f', 'qcow2', ...chosen, base, `${size}`);
      qemuIo(base, 'write -P 1 0 2M', 'write -P 5 2M 64k');
      qemuImg('snapshot', '-c', 'a', base);
      qemuIo(base, ...randomWrites(random, 6, size));
      qemuImg('snapshot', '-c', 'b', base);
      qemuIo(base, ...randomWrites(random, 6, size));
      const disks = [qemuRead(base, 'a'), qemuRead(base, 'b'), qemuRead(base)] as const;
      const pairs = [
        [['-l', 'a', '-l', 'b', base], disks[0], disks[1]],
        [['-l', 'snapshot.name=b', '-l', '1', base], disks[1], disks[0]],
        [['-l', 'b', base], disks[1], disks[2]],
      ] as const;
      for (const [words, first, second] of pairs) {
        expectTrue(diff(...words), diff('--metadata', ...words), first, second);
      }
      const more = ['-b', base, '-F', 'qcow2'];
      qemuImg('create', '-q', '-f', 'qcow2', ...chosen, ...more, top, `${size + 64 * KIB}`);
      qemuIo(top, ...randomWrites(random, 4, size), `write -P 3 ${size + SECTOR} 512`);
      const now = qemuRead(top);
      expectTrue(diff(base, top), diff('--metadata', base, top), disks[2], now);
      expectTrue(diff(top, base), diff('--metadata', top, base), now, disks[2]);
      const side = temp.at('side.qcow2');
      const [first, second] = ['2M', `${size - 3 * SECTOR}`];
      qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=16k', ...more, side, second);
      qemuIo(side, ...randomWrites(random, 4, size - 64 * KIB), `write -c -P 7 ${first} 64k`);
      expectTrue(diff(top, side), diff('--metadata', top, side), now, qemuRead(side));
      expectTrue(diff(side, top), diff('--metadata', side, top), qemuRead(side), now);
    });
  }

  it('decrypts what it compares, and reads what lies in a data file', () => {
    const random = new Random(SEED);
    const size = 1024 * KIB;
    const path = temp.at('secret.qcow2');
    const make = (options: string, file: string, ...more: string[]) =>
      qemuImg('create', '-q', ...SECRET, '-f', 'qcow2', '-o', options, ...more, file, `${size}`);
    make(AES_OPTIONS, path);
    qemuIo(path, 'write -P 1 0 512k');
    qemuImg('snapshot', '-c', 's', ...imageWords(path));
    const before = qemuRead(path);
    qemuIo(path, 'write -P 1 64k 64k', ...randomWrites(random, 3, size));
    const words = imageWords(path);
    const exact = diff('-l', 's', ...words);
    const byTables = diff('--metadata', '-l', 's', ...words);
    expectTrue(exact, byTables, before, qemuRead(path));
    expect(diff('--metadata', '-l', 's', path), 'without a key').to.deep.equal(byTables);
    const base = temp.at('split.qcow2');
    const over = temp.at('over.qcow2');
    make(`data_file=${temp.at('data')}`, base);
    qemuIo(base, 'write -P 3 0 700k');
    make(`data_file=${temp.at('other')}`, over, '-b', base, '-F', 'qcow2');
    qemuIo(over, ...randomWrites(random, 4, size));
    expectTrue(diff(base, over), diff('--metadata', base, over), qemuRead(base), qemuRead(over));
  });

  it('tells of bitmaps that are out of date', () => {
    const path = temp.at('stale.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', path, '1M');
    qemuImg('bitmap', '--add', path, 'b');
    const bytes = readFileSync(path);
    bytes.fill(0, 88, 96);
    writeFileSync(path, bytes);
    const { status, stderr } = qcow2fs('diff', path, path);
    expect(status).to.equal(0);
    expect(stderr.match(/all bitmaps are now considered inconsistent/g)).to.have.length(2);
  });

  it('takes what is at the same place for the same, without reading it', () => {
    const path = temp.at('same.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', path, '1G');
    qemuIo(path, 'write -P 1 0 1M', 'write -c -P 2 1M 64k');
    qemuImg('snapshot', '-c', 's', path);
    qemuIo(path, 'write -P 1 64k 64k');
    expect(diff('-l', 's', path)).to.deep.equal([]);
    expect(diff('--metadata', '-l', 's', path)).to.deep.equal([
      { start: 64 * KIB, length: 64 * KIB, zero: false },
    ]);
  });

  it('prints a table for people, and refuses what it does not understand', () => {
    const path = temp.at('words.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', path, '1M');
    qemuImg('snapshot', '-c', 's', path);
    qemuIo(path, 'write -P 1 64k 1k', 'write -z 256k 64k');
    const { stdout } = qcow2fs('diff', '-l', 's', path);
    expect(stdout.split('\n').map((line) => line.split(/ +/))).to.deep.equal([
      ['Offset', 'Length', 'Now'],
      ['0x10000', '0x400', 'data'],
      [''],
    ]);
    for (const words of [[path], ['-l', 's', path, path], [path, path, path], ['-l', 'x', path]]) {
      expect(qcow2fs('diff', ...words).status, words.join(' ')).to.equal(1);
    }
    writeFileSync(temp.at('text'), 'nothing');
    expect(qcow2fs('diff', path, join(temp.path, 'missing')).stderr).to.match(/Could not open/);
  });
});

describe('changed.json of a snapshot in a mount', () => {
  skipSuite(noMounts);
  const sandbox = useSandbox();

  it('tells what changed since, whenever it is read', async () => {
    const path = sandbox().path('disk.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', path, '4M');
    qemuIo(path, 'write -P 1 0 2M');
    qemuImg('snapshot', '-c', 'old', path);
    qemuIo(path, 'write -P 2 1M 512', 'write -z 64k 64k');
    const read = () => JSON.parse(readFileSync(`${mnt}/disk.snapshots/old.changed.json`, 'utf8'));
    let mnt = await sandbox().mount(path);
    const known = [
      { start: 64 * KIB, length: 64 * KIB, zero: true },
      { start: 1024 * KIB, length: 64 * KIB, zero: false },
    ];
    const size = () => statSync(`${mnt}/disk.snapshots/old.changed.json`).size;
    expect(size(), 'before somebody opens it').to.equal('[]\n'.length);
    const tar = spawnSync('tar', ['cf', '-', '-C', `${mnt}/disk.snapshots`, 'old.changed.json']);
    const unpacked = spawnSync('tar', ['xOf', '-'], { input: tar.stdout, encoding: 'utf8' }).stdout;
    expect(JSON.parse(unpacked)).to.deep.equal(known);
    expect(size()).to.equal(unpacked.length);
    expect(read()).to.deep.equal(known);
    await sandbox().unmount(mnt);
    mnt = await sandbox().mount(path, { options: ['-o', 'rw'] });
    expect(read()).to.deep.equal(known);
    writeFileSync(`${mnt}/disk.raw`, Buffer.alloc(512, 7), { flag: 'r+' });
    expect(read()).to.deep.equal([{ start: 0, length: 64 * KIB, zero: false }, ...known]);
    await sandbox().unmount(mnt);
  });

  it('tells all that differs by the bytes, whatever was written', async () => {
    const random = new Random(SEED);
    const path = sandbox().path('disk.qcow2');
    const size = 3 * KIB * KIB;
    const options = random.pick(['cluster_size=4k', 'extended_l2=on', 'compat=0.10']);
    qemuImg('create', '-q', '-f', 'qcow2', '-o', options, path, `${size}`);
    qemuIo(path, 'write -P 1 0 2M', ...randomWrites(random, 4, size));
    const names = ['a', 'b'];
    for (const name of names) {
      qemuImg('snapshot', '-c', name, path);
      qemuIo(path, ...randomWrites(random, 5, size));
    }
    const mnt = await sandbox().mount(path, { options: ['-o', 'rw'] });
    for (let round = 0; round < 3; round++) {
      for (const name of names) {
        const snapshot = `${mnt}/disk.snapshots/${name}`;
        const told = JSON.parse(readFileSync(`${snapshot}.changed.json`, 'utf8')) as Extent[];
        const [old, now] = [readFileSync(`${snapshot}.raw`), readFileSync(`${mnt}/disk.raw`)];
        const where = `${options}, ${name}, round ${round}`;
        const has = new Set(sectorsOf(told));
        expect(
          sectors(old, now).filter((sector) => !has.has(sector)),
          where,
        ).to.deep.equal([]);
        for (const { start, length, zero } of told) {
          const isZero = now.subarray(start, start + length).every((byte) => byte === 0);
          expect(!zero || isZero, where).to.equal(true);
        }
      }
      for (let n = 0; n < 3; n++) {
        const length = SECTOR * (1 + random.below(200));
        const at = SECTOR * random.below((size - length) / SECTOR);
        put(`${mnt}/disk.raw`, at, Buffer.alloc(length, random.below(3)));
      }
    }
  });
});
