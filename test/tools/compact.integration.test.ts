/** Compacting images of all kinds: QEMU reads the same before and after, and finds nothing wrong. */
import { copyFileSync, statSync } from 'node:fs';
import { expect } from 'chai';
import { type CompactRequest, compactImage } from '#src/tools/compact.js';
import { Cancelled } from '#src/tools/progress.js';
import { runSteps } from '#src/image/steps.js';
import { encryptedSpec, makeLuksImage, qemuIoOn } from '../helpers/encrypted.js';
import { qemuImg, qemuIo, qemuRead, tryQemuImg, tryQemuIo } from '../helpers/qemu.js';
import { qemuDirty } from '../helpers/qemu-bitmaps.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { runInProcess } from '../helpers/in-process.js';
import { useTempFolder } from '../helpers/temp.js';

const MIB = 1 << 20;
/** Bytes: several batches. */
const BATCH = 512 << 10;

interface Kind {
  readonly name: string;
  readonly options: string;
  readonly clusterSize: number;
  readonly size: number;
  readonly compressed?: boolean;
  readonly snapshots?: boolean;
  readonly bitmaps?: boolean;
}

const KINDS: readonly Kind[] = [
  { name: 'v2', options: 'compat=0.10', clusterSize: 4096, size: 2 * MIB, snapshots: true },
  {
    name: 'tiny clusters',
    options: 'refcount_bits=64',
    clusterSize: 512,
    size: MIB,
    snapshots: true,
  },
  {
    ...{ name: 'zlib', options: 'refcount_bits=8', clusterSize: 65536, size: 4 * MIB },
    ...{ compressed: true, snapshots: true },
  },
  {
    ...{ name: 'zstd, subclusters', options: 'compression_type=zstd,extended_l2=on' },
    ...{ clusterSize: 16384, size: 4 * MIB, compressed: true, snapshots: true },
  },
  {
    ...{ name: 'counts of one bit', options: 'refcount_bits=1', clusterSize: 4096, size: 2 * MIB },
    ...{ compressed: true, bitmaps: true },
  },
  { name: 'large clusters', options: 'lazy_refcounts=on', clusterSize: 2 * MIB, size: 16 * MIB },
  {
    ...{ name: 'bitmaps', options: 'refcount_bits=32', clusterSize: 512, size: 2 * MIB },
    ...{ bitmaps: true },
  },
];

/** Kinds that are stopped, too. */
const STOPPED = new Set(['v2', 'zlib', 'bitmaps']);

/** Commands of qemu-io that leave holes and pieces all over the disk. */
function scramble({ size, clusterSize, compressed }: Kind, random: Random): string[] {
  return Array.from({ length: 40 }, () => {
    const length = Math.min(size / 2, clusterSize * random.pick([0.5, 1, 2, 5]));
    const at = Math.floor((random.below(size - length) / clusterSize) * 2) * (clusterSize / 2);
    const start = Math.floor(at / clusterSize) * clusterSize;
    const seed = 1 + random.below(250);
    const kind = random.below(10);
    if (kind < 2) return `discard ${start} ${Math.max(length, clusterSize)}`;
    if (kind < 3) return `write -z ${start} ${length}`;
    if (kind < 7 && compressed === true) return `write -c -P ${seed} ${start} ${clusterSize}`;
    return `write -P ${seed} ${start} ${length}`;
  });
}

describe('compactImage()', () => {
  const temp = useTempFolder();
  printSeed();

  /**
   * An image that QEMU made, as it left it: where compressed data comes over other data, QEMU 7.2 now and then
   * leaves entries that it cannot read itself, and another one is made.
   */
  function make(kind: Kind, random: Random): string {
    for (;;) {
      const path = makeOne(kind, random);
      if (canRead(path, kind)) return path;
    }
  }

  function canRead(path: string, kind: Kind): boolean {
    return [[], ...namesOf(kind).map((name) => ['-l', name])].every((which) => {
      return tryQemuImg('convert', '-O', 'raw', ...which, path, temp.at('read')).status === 0;
    });
  }

  function namesOf({ snapshots }: Kind): string[] {
    return snapshots === true ? ['s0', 's2'] : [];
  }

  function makeOne(kind: Kind, random: Random): string {
    const path = temp.at('image.qcow2');
    const options = `${kind.options},cluster_size=${kind.clusterSize}`;
    qemuImg('create', '-q', '-f', 'qcow2', '-o', options, path, String(kind.size));
    for (let round = 0; round < 3; round++) {
      // Some are refused: compressed data replaces nothing.
      const words = scramble(kind, random).flatMap((command) => ['-c', command]);
      tryQemuIo('-f', 'qcow2', ...words, path);
      if (kind.bitmaps === true && round < 2) qemuImg('bitmap', '--add', path, `b${round}`);
      if (kind.snapshots === true) qemuImg('snapshot', '-c', `s${round}`, path);
    }
    if (kind.snapshots === true) qemuImg('snapshot', '-d', 's1', path);
    tryQemuImg('check', '-q', '-r', 'all', path);
    return path;
  }

  function contents(path: string, kind: Kind): unknown {
    return {
      disks: [qemuRead(path), ...namesOf(kind).map((name) => qemuRead(path, name))].map((bytes) =>
        bytes.toString('latin1'),
      ),
      bitmaps: kind.bitmaps === true ? ['b0', 'b1'].map((name) => qemuDirty(path, name)) : [],
    };
  }

  function usedClusters(path: string): number {
    return JSON.parse(qemuImg('check', '--output=json', path))['image-end-offset'];
  }

  for (const kind of KINDS) {
    it(`keeps what is read: ${kind.name}`, () => {
      const path = make(kind, new Random(SEED));
      const before = contents(path, kind);
      const { size } = statSync(path);
      const request: CompactRequest = { batch: BATCH };
      const planned = runSteps(compactImage(path, { ...request, dryRun: true }));
      expect(statSync(path).size, 'a dry run').to.equal(size);
      const result = runSteps(compactImage(path, request));
      expect({ ...result, moved: 0 }).to.deep.equal({ ...planned, moved: 0 });
      expect(statSync(path).size).to.equal(result.after).and.at.most(size);
      expect(tryQemuImg('check', path).stdout).to.contain('No errors were found');
      expect(usedClusters(path)).to.be.at.most(
        Math.ceil(result.after / kind.clusterSize) * kind.clusterSize,
      );
      expect(contents(path, kind)).to.deep.equal(before);
      const again = runSteps(compactImage(path, request));
      expect(again.after, 'a second time').to.equal(result.after);
    });

    if (!STOPPED.has(kind.name)) continue;
    it(`can be stopped, and goes on: ${kind.name}`, () => {
      const path = make(kind, new Random(SEED + 1));
      const before = contents(path, kind);
      const whole = temp.at('whole.qcow2');
      copyFileSync(path, whole);
      const { after } = runSteps(compactImage(whole, { batch: BATCH }));
      for (const most of [4, 12]) {
        const steps = compactImage(path, { batch: BATCH });
        for (let n = 0; n < most && steps.next().done !== true; n++);
        expect(() => steps.throw(new Cancelled())).to.throw(Cancelled);
        expect(tryQemuImg('check', path).stdout).to.contain('No errors were found');
      }
      expect(contents(path, kind)).to.deep.equal(before);
      const clusters = (size: number) => Math.ceil(size / kind.clusterSize);
      const last = runSteps(compactImage(path, { batch: BATCH }));
      // Compressed data is packed anew, another time otherwise.
      const slack = kind.compressed === true ? 4 : 0;
      expect(clusters(last.after)).to.be.closeTo(clusters(after), slack);
    });
  }

  it('encrypts anew what LUKS has encrypted by its place', async () => {
    const path = temp.at('luks.qcow2');
    await makeLuksImage(path, 4 * MIB);
    const object = ['--object', 'secret,id=s,data=passphrase'];
    const { keys } = encryptedSpec(path);
    const secret = keys!.secret('s').toString();
    object[1] = `secret,id=s,data=${secret}`;
    const name = `driver=qcow2,file.filename=${path},encrypt.key-secret=s`;
    qemuIoOn(name, object, 'write -P 1 0 1M', 'write -P 2 1M 1M', 'write -P 3 2M 1M');
    qemuIoOn(name, object, 'discard 0 1M', 'discard 2M 512k', 'write -P 4 3M 64k');
    const { before, after } = runSteps(compactImage(encryptedSpec(path), { batch: BATCH }));
    expect(after).to.be.below(before - MIB);
    qemuIoOn(name, object, 'read -P 2 1M 1M', 'read -P 3 2560k 512k', 'read -P 4 3M 64k');
    qemuIoOn(name, object, 'read -P 0 0 1M', 'read -P 0 2M 512k');
  });

  it('moves the metadata of an image with a data file', () => {
    const path = temp.at('external.qcow2');
    const options = `cluster_size=512,data_file=${temp.at('data.raw')}`;
    qemuImg('create', '-q', '-f', 'qcow2', '-o', options, path, '4M');
    qemuIo(path, 'write -P 1 0 1M', 'write -P 2 2M 1M', 'discard 0 1M');
    runSteps(compactImage(path, { batch: 4096 }));
    qemuIo(path, 'read -P 2 2M 1M', 'read -P 0 0 1M');
    expect(tryQemuImg('check', path).stdout).to.contain('No errors were found');
  });

  it('refuses what it cannot do, in words', async () => {
    temp.write('disk.raw', Buffer.alloc(MIB));
    const raw = await runInProcess(['compact', '-f', 'raw', 'disk.raw'], temp.path);
    expect(raw.status).to.equal(1);
    expect(raw.stderr).to.match(/'raw' cannot be compacted: 'qcow2fs convert'/);
    const path = make(KINDS[0]!, new Random(SEED));
    const told = await runInProcess(['compact', '-n', 'image.qcow2'], temp.path);
    expect(told.stdout).to.match(/^Image (would be cut from|is compact)/);
    const json = await runInProcess(['compact', '--output=json', 'image.qcow2'], temp.path);
    const { before, after, saved } = JSON.parse(json.stdout);
    expect(saved).to.equal(before - after);
    expect(after).to.equal(statSync(path).size);
  });
});
