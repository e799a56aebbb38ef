/** Compacting images of all kinds: QEMU reads the same before and after, and finds nothing wrong. */
import { copyFileSync, statSync } from 'node:fs';
import { expect } from 'chai';
import { type CompactRequest, compactImage } from '#src/tools/compact.js';
import { Cancelled } from '#src/tools/progress.js';
import { runSteps } from '#src/image/steps.js';
import { encryptedSpec, makeLuksImage, qemuIoOn } from '../helpers/encrypted.js';
import {
  contentsOf,
  FRAGMENTED_KINDS,
  type FragmentedKind,
  makeFragmented,
} from '../helpers/fragmented-images.js';
import { qemuImg, qemuIo, tryQemuImg } from '../helpers/qemu.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { runInProcess } from '../helpers/in-process.js';
import { useTempFolder } from '../helpers/temp.js';

/** Bytes: several batches. */
const BATCH = 512 << 10;
const MIB = 1 << 20;

/** Kinds that are stopped, too. */
const STOPPED = new Set(['v2', 'zlib', 'bitmaps']);

describe('compactImage()', () => {
  const temp = useTempFolder();
  printSeed();

  function make(kind: FragmentedKind, random: Random): string {
    const path = temp.at('image.qcow2');
    makeFragmented(path, kind, random);
    return path;
  }

  function usedClusters(path: string): number {
    return JSON.parse(qemuImg('check', '--output=json', path))['image-end-offset'];
  }

  for (const kind of FRAGMENTED_KINDS) {
    it(`keeps what is read: ${kind.name}`, () => {
      const path = make(kind, new Random(SEED));
      const before = contentsOf(path, kind);
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
      expect(contentsOf(path, kind)).to.deep.equal(before);
      const again = runSteps(compactImage(path, request));
      expect(again.after, 'a second time').to.equal(result.after);
    });

    if (!STOPPED.has(kind.name)) continue;
    it(`can be stopped, and goes on: ${kind.name}`, () => {
      const path = make(kind, new Random(SEED + 1));
      const before = contentsOf(path, kind);
      const whole = temp.at('whole.qcow2');
      copyFileSync(path, whole);
      const { after } = runSteps(compactImage(whole, { batch: BATCH }));
      for (const most of [4, 12]) {
        const steps = compactImage(path, { batch: BATCH });
        for (let n = 0; n < most && steps.next().done !== true; n++);
        expect(() => steps.throw(new Cancelled())).to.throw(Cancelled);
        expect(tryQemuImg('check', path).stdout).to.contain('No errors were found');
      }
      expect(contentsOf(path, kind)).to.deep.equal(before);
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
    const path = make(FRAGMENTED_KINDS[0]!, new Random(SEED));
    const told = await runInProcess(['compact', '-n', 'image.qcow2'], temp.path);
    expect(told.stdout).to.match(/^Image (would be cut from|is compact)/);
    const json = await runInProcess(['compact', '--output=json', 'image.qcow2'], temp.path);
    const { before, after, saved } = JSON.parse(json.stdout);
    expect(saved).to.equal(before - after);
    expect(after).to.equal(statSync(path).size);
  });
});
