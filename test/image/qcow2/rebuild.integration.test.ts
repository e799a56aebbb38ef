/** Refcounts of QEMU's images, damaged and rebuilt: QEMU says whether they are right again. */
import { spawnSync } from 'node:child_process';
import { copyFileSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import { qemuImg, qemuIo, qemuRead, tryQemuImg } from '../../helpers/qemu.js';
import { printSeed, Random, SEED } from '../../helpers/random.js';
import {
  changeFile,
  damageCopied,
  damageRefcounts,
  dropBlocks,
  headerOf,
  isDirty,
  markDirty,
  rebuildFile,
} from '../../helpers/refcount-damage.js';
import { useTempFolder } from '../../helpers/temp.js';

const MIB = 1 << 20;

interface Layout {
  readonly options: string;
  readonly size: number;
  readonly snapshots?: boolean;
  readonly compressed?: boolean;
  readonly bitmaps?: boolean;
}

const layouts: readonly Layout[] = [
  { options: 'compat=0.10', size: 8 * MIB, snapshots: true, compressed: true },
  { options: 'compat=0.10,cluster_size=512', size: MIB, snapshots: true, compressed: true },
  { options: 'cluster_size=512,refcount_bits=1', size: MIB },
  { options: 'cluster_size=1k,refcount_bits=2', size: 2 * MIB, compressed: true },
  { options: 'cluster_size=4k,refcount_bits=4', size: 4 * MIB, snapshots: true },
  { options: 'cluster_size=4k,refcount_bits=8', size: 4 * MIB, snapshots: true, compressed: true },
  { options: 'cluster_size=512,refcount_bits=64', size: 4 * MIB, snapshots: true },
  { options: 'cluster_size=64k', size: 40 * MIB, snapshots: true, compressed: true, bitmaps: true },
  { options: 'cluster_size=2M,refcount_bits=32', size: 40 * MIB, snapshots: true },
  { options: 'cluster_size=1k,refcount_bits=32,lazy_refcounts=on', size: 4 * MIB, bitmaps: true },
  { options: 'cluster_size=16k,extended_l2=on', size: 12 * MIB, snapshots: true, compressed: true },
  { options: 'cluster_size=2M,extended_l2=on', size: 20 * MIB, snapshots: true },
  { options: 'cluster_size=64k,preallocation=metadata', size: 4 * MIB },
  { options: 'extended_l2=on,preallocation=falloc', size: 4 * MIB },
  { options: 'compression_type=zstd', size: 8 * MIB, snapshots: true, compressed: true },
];

function randomWrites(random: Random, size: number, clusterSize: number): string[] {
  return Array.from({ length: 40 }, () => {
    const unit = random.chance(0.5) ? 512 : clusterSize;
    const offset = random.below(Math.max(1, Math.floor(size / unit))) * unit;
    const length = Math.min(size - offset, unit * (1 + random.below(5)));
    const flags = random.pick([`-P ${1 + random.below(255)}`, '-z', '-z -u']);
    return random.chance(0.15)
      ? `discard ${offset} ${length}`
      : `write ${flags} ${offset} ${length}`;
  });
}

/** Compressed clusters here and there: QEMU writes such only where nothing is yet. */
function compressedWrites(random: Random, size: number, clusterSize: number): string[] {
  const writes: string[] = [];
  for (let at = 0; at < size && writes.length < 60; at += clusterSize) {
    if (random.chance(0.4))
      writes.push(`write -c -P ${1 + random.below(255)} ${at} ${clusterSize}`);
  }
  return writes;
}

/** Makes an image with everything that the layout asks for. Answers its snapshots' names. */
function makeImage(path: string, layout: Layout, random: Random): string[] {
  qemuImg('create', '-q', '-f', 'qcow2', '-o', layout.options, path, `${layout.size}`);
  const { clusterSize } = headerOf(readFileSync(path)).geometry;
  if (layout.bitmaps === true) qemuImg('bitmap', '--add', '-g', '64k', path, 'b0');
  if (layout.compressed === true)
    qemuIo(path, ...compressedWrites(random, layout.size, clusterSize));
  const names: string[] = [];
  for (let round = 0; round < 4; round++) {
    qemuIo(path, ...randomWrites(random, layout.size, clusterSize));
    if (layout.snapshots !== true || round === 3) continue;
    qemuImg('snapshot', '-c', `s${round}`, path);
    names.push(`s${round}`);
  }
  if (names.length > 0 && random.chance(0.5)) qemuImg('snapshot', '-d', names.shift()!, path);
  if (layout.bitmaps === true) qemuImg('bitmap', '--add', '--disable', path, 'b1');
  return names;
}

function expectClean(path: string): void {
  const { status, stdout, stderr } = tryQemuImg('check', path);
  expect(status, stdout + stderr).to.equal(0);
  expect(stdout).to.contain('No errors were found');
  expect(isDirty(readFileSync(path))).to.equal(false);
}

describe('rebuildRefcounts() on images of QEMU', () => {
  const temp = useTempFolder();
  const random = new Random(SEED);
  printSeed();

  function contents(path: string, snapshots: readonly string[]): Buffer[] {
    return [qemuRead(path), ...snapshots.map((name) => qemuRead(path, name))];
  }

  function expectRebuilt(path: string, names: readonly string[], truth: readonly Buffer[]): void {
    expectClean(path);
    for (const [n, bytes] of contents(path, names).entries()) {
      expect(bytes.equals(truth[n]!), `contents ${n}`).to.equal(true);
    }
    // With QEMU writing on, nothing that is in use may be given away.
    qemuIo(path, `write -P 77 0 ${MIB / 2}`);
    expectClean(path);
    for (const [n, name] of names.entries()) {
      expect(qemuRead(path, name).equals(truth[n + 1]!), name).to.equal(true);
    }
  }

  for (const layout of layouts) {
    it(`finds nothing to repair, or repairs what was damaged: ${layout.options}`, () => {
      const path = temp.at('image');
      const names = makeImage(path, layout, random);
      const truth = contents(path, names);
      const before = readFileSync(path);
      changeFile(path, markDirty);
      expect(rebuildFile(path)).to.deep.equal({ leaksFixed: 0, corruptionsFixed: 0 });
      expect(readFileSync(path).equals(before)).to.equal(true);
      const kinds = [damageRefcounts, damageCopied, dropBlocks];
      for (const damages of [[0], [1], [2], [0, 1, 2]]) {
        const copy = temp.at(`copy-${damages.join('')}`);
        copyFileSync(path, copy);
        changeFile(copy, (bytes) => {
          for (const kind of damages) kinds[kind]!(bytes, random);
          markDirty(bytes);
        });
        rebuildFile(copy);
        expectRebuilt(copy, names, truth);
      }
    });
  }

  it('repairs what lazy refcounts leave behind when QEMU is killed', () => {
    for (const options of ['lazy_refcounts=on', 'lazy_refcounts=on,cluster_size=4k']) {
      const path = temp.at('lazy');
      qemuImg('create', '-q', '-f', 'qcow2', '-o', options, path, `${20 * MIB}`);
      qemuIo(path, 'write -P 1 1M 2M');
      qemuImg('snapshot', '-c', 's', path);
      const words = ['write -P 2 0 5M', 'write -P 3 9M 70000', 'flush', 'sigraise 9'];
      spawnSync('qemu-io', [...words.flatMap((word) => ['-c', word]), path]);
      expect(isDirty(readFileSync(path))).to.equal(true);
      expect(tryQemuImg('check', path).status).to.not.equal(0);
      const truth = contents(path, ['s']);
      expect(rebuildFile(path).corruptionsFixed).to.be.above(0);
      expectRebuilt(path, ['s'], truth);
    }
  });

  it('moves a refcount table that is too short', () => {
    const path = temp.at('short');
    const options = 'cluster_size=512,refcount_bits=64';
    qemuImg('create', '-q', '-f', 'qcow2', '-o', options, path, `${8 * MIB}`);
    qemuIo(path, 'write -P 9 0 8M');
    const truth = contents(path, []);
    const { refcountTableClusters } = headerOf(readFileSync(path));
    expect(refcountTableClusters).to.be.above(1);
    changeFile(path, (bytes) => {
      bytes.writeUInt32BE(1, 56);
      markDirty(bytes);
    });
    rebuildFile(path);
    expect(headerOf(readFileSync(path)).refcountTableClusters).to.be.above(1);
    expectRebuilt(path, [], truth);
  });

  it('counts the header of an encrypted image, whatever its contents', () => {
    const path = temp.at('luks');
    const secret = ['--object', 'secret,id=s,data=abc'];
    const options = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10';
    qemuImg('create', '-q', ...secret, '-f', 'qcow2', '-o', options, path, '4M');
    changeFile(path, (bytes) => {
      damageRefcounts(bytes, random);
      markDirty(bytes);
    });
    rebuildFile(path);
    const opened = `driver=qcow2,file.filename=${path},encrypt.key-secret=s`;
    const { status, stdout, stderr } = tryQemuImg('check', ...secret, '--image-opts', opened);
    expect(status, stdout + stderr).to.equal(0);
  });

  it('sets COPIED on all clusters of an external data file', () => {
    const path = temp.at('external');
    const options = `data_file=${temp.at('data')}`;
    qemuImg('create', '-q', '-f', 'qcow2', '-o', options, path, '4M');
    qemuIo(path, 'write -P 1 0 1M', 'write -z 2M 128k', 'write -P 3 3M 64k');
    const truth = contents(path, []);
    const before = readFileSync(path);
    changeFile(path, (bytes) => {
      damageRefcounts(bytes, random);
      bytes[headerOf(bytes).l1TableOffset]! ^= 0x80;
      markDirty(bytes);
    });
    rebuildFile(path);
    expect(readFileSync(path).equals(before)).to.equal(true);
    expectRebuilt(path, [], truth);
  });
});
