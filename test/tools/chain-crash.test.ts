/**
 * Power failures while an image is rebased or committed: whatever is left, it is in order and reads as
 * before. What is left of the base comes with what was left of the image at that time.
 */
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { AttachedImage } from '#src/image/attach.js';
import type { ImageDescription } from '#src/image/description.js';
import { allocateImageMemory } from '#src/image/memory.js';
import { openImage } from '#src/image/open.js';
import type { ImageSpec } from '#src/image/spec.js';
import { MIN_CACHE_SIZE } from '#src/shared/slice-cache.js';
import { commitInto } from '#src/tools/commit.js';
import { OpenDisk, openDisk } from '#src/tools/open-disk.js';
import { NO_PROGRESS } from '#src/tools/progress.js';
import { renameBacking, takeDifferences } from '#src/tools/rebase.js';
import { checkStructure, isDirty } from '../helpers/crash-check.js';
import { pairStates } from '../helpers/crash-pairs.js';
import { crashStates } from '../helpers/crash-states.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { qemuCheck } from '../helpers/qemu-checks.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { readImage } from '../helpers/read.js';
import { type Clock, RecordingStorage } from '../helpers/recording-storage.js';

const STATES = 25;
const OPTIONS = ['compat=0.10', 'compat=1.1', 'compat=1.1,lazy_refcounts=on', 'extended_l2=on'];

/** Opens an image for writing to a recording of its file. */
function openRecorded(
  spec: ImageSpec,
  clock?: Clock,
): { disk: OpenDisk; storage: RecordingStorage } {
  const opened = openImage(spec, { writable: true, lock: 'write' });
  const { description } = opened;
  const storage = new RecordingStorage(readFileSync(spec.path), spec.path, clock);
  const memory = allocateImageMemory(description, {
    cacheSize: MIN_CACHE_SIZE,
    owners: 1,
    storage,
  });
  const attach = (now: ImageDescription) => new AttachedImage(now, memory, 1, { storage });
  return { disk: new OpenDisk(opened, attach), storage };
}

/** Ends it as a command would: what is behind it is in the recording. */
function close(disk: OpenDisk): void {
  disk.writer.flushAll();
  disk.abandon();
}

describe('a chain after a crash', () => {
  printSeed();
  let folder = '';
  const at = (name: string) => join(folder, name);
  beforeEach(() => {
    folder = mkdtempSync(join('/dev/shm', 'qcow2fs-chain-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  /** Two backing files of different contents and sizes, and an overlay of the first. */
  function makeImages(options: string, random: Random): void {
    const cluster = options.startsWith('ext') ? '16k' : random.pick(['512', '4k']);
    const all = `${options},cluster_size=${cluster}`;
    const sizes = { base: 200 + random.below(200), other: 100 + random.below(400), top: 384 };
    for (const [name, size] of Object.entries(sizes)) {
      const backing = name === 'top' ? ['-b', 'base', '-F', 'qcow2'] : [];
      const words = ['-q', '-f', 'qcow2', '-o', all, ...backing];
      qemuImg('create', ...words, at(name), `${size}k`);
      const steps = Array.from({ length: 5 }, () => {
        const start = random.below(size - 4);
        const length = Math.min(size - start, 1 + random.below(60));
        return `write -P ${1 + random.below(255)} ${start}k ${length}k`;
      });
      qemuIo(at(name), ...steps);
    }
  }

  /** Judges the image of that name: in order, by QEMU's repair where it says that it is not closed. */
  async function judge(name: string, what: string): Promise<void> {
    if (!isDirty(at(name))) {
      expect(await checkStructure(at(name)), what).to.equal(null);
      return;
    }
    copyFileSync(at(name), at(`${name}.copy`));
    const { status, output } = await qemuCheck('repair', at(`${name}.copy`));
    expect(status, `${what}: ${output}`).to.equal(0);
  }

  for (const options of OPTIONS) {
    for (const target of ['other', '']) {
      it(`of rebase over '${target}' is in order, and reads as before: ${options}`, async () => {
        const random = new Random(SEED);
        makeImages(options, random);
        const bytes = readImage(at('top'));
        const { disk, storage } = openRecorded({ path: at('top'), filename: 'top' });
        const next = target === '' ? null : await openDisk(at(target));
        await takeDifferences(disk, next, random.chance(0.3), NO_PROGRESS);
        renameBacking(disk, target, target === '' ? null : 'qcow2');
        close(disk);
        next?.abandon();
        for (const state of crashStates(storage.recording, STATES, random)) {
          writeFileSync(at('top'), state.bytes);
          expect(readImage(at('top')).equals(bytes), state.description).to.equal(true);
          await judge('top', state.description);
        }
        writeFileSync(at('top'), storage.bytes);
        expect(readImage(at('top')).equals(bytes), 'in the end').to.equal(true);
        const info = JSON.parse(qemuImg('info', '--output=json', at('top')));
        expect(info['backing-filename']).to.equal(target === '' ? undefined : target);
      });
    }

    it(`of commit is in order, and reads as before: ${options}`, async () => {
      const random = new Random(SEED);
      makeImages(options, random);
      const bytes = readImage(at('top'));
      const clock = { now: 0 };
      const spec = { path: at('top'), filename: 'top', backing: null };
      const top = openRecorded(spec, clock);
      const base = openRecorded({ path: at('base'), filename: 'base' }, clock);
      const request = { spec, keep: false, bytesPerSecond: 0, write: {} };
      await commitInto(top.disk, 1, base.disk, request, NO_PROGRESS);
      close(base.disk);
      close(top.disk);
      const recordings = [top.storage.recording, base.storage.recording] as const;
      for (const state of pairStates(...recordings, STATES, random)) {
        writeFileSync(at('top'), state.bytes);
        writeFileSync(at('base'), state.data!);
        expect(readImage(at('top')).equals(bytes), state.description).to.equal(true);
        for (const name of ['top', 'base']) await judge(name, state.description);
      }
      writeFileSync(at('top'), top.storage.bytes);
      writeFileSync(at('base'), base.storage.bytes);
      expect(readImage(at('top')).equals(bytes), 'in the end').to.equal(true);
      expect(readImage(at('base')).subarray(0, bytes.length).equals(bytes)).to.equal(true);
      const map = JSON.parse(qemuImg('map', '--output=json', at('top'))) as { depth: number }[];
      expect(map.map(({ depth }) => depth)).not.to.include(0);
    });
  }
});
