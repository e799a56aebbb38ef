/**
 * Power failures while a QED image is written to: whatever they leave opens, has no wrong entry, and holds
 * what was flushed; what was written since is there or is not, sector by sector.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { AttachedImage } from '#src/image/attach.js';
import { allocateImageMemory } from '#src/image/memory.js';
import { closeImage, openImage } from '#src/image/open.js';
import { MIN_CACHE_SIZE } from '#src/shared/slice-cache.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { check } from '#src/tools/check.js';
import { openDisk } from '#src/tools/open-disk.js';
import { crashStates } from '../helpers/crash-states.js';
import { qemuImg } from '../helpers/qemu.js';
import { pattern, printSeed, Random, SEED } from '../helpers/random.js';
import { readImage } from '../helpers/read.js';
import { RecordingStorage } from '../helpers/recording-storage.js';
import { useTempFolder } from '../helpers/temp.js';

const SIZE = 512 << 10;
const SECTOR = 512;
const STEPS = 60;
const STATES = 150;

/** The disk as it is to be once so many operations were done; `certain`: after a flush. */
interface Step {
  readonly operations: number;
  readonly disk: Buffer;
  readonly certain: boolean;
}

describe('a QED image after a crash', () => {
  const temp = useTempFolder();
  printSeed();

  function work(path: string, random: Random): { storage: RecordingStorage; steps: Step[] } {
    const { description } = openImage(path, { format: 'qed', writable: true, lock: 'write' });
    try {
      const storage = new RecordingStorage(readFileSync(path), 'qed');
      const options = { cacheSize: MIN_CACHE_SIZE, owners: 1, storage };
      const image = new AttachedImage(description, allocateImageMemory(description, options), 1, {
        storage,
      });
      let disk = readFileSync(temp.at('base'));
      const steps: Step[] = [{ operations: 0, disk, certain: true }];
      for (let n = 0; n < STEPS; n++) {
        disk = Buffer.from(disk);
        const offset = random.below(SIZE / SECTOR) * SECTOR;
        const length = Math.min(SIZE - offset, (1 + random.below(40)) * SECTOR);
        const kind = random.below(6);
        if (kind < 3) {
          const source = new IoBuffer(length);
          source.bytes.fill(1 + n);
          image.writer!.write(offset, length, source, 0);
          disk.fill(1 + n, offset, offset + length);
        } else if (kind === 3) {
          image.writer!.zero(offset, length);
          disk.fill(0, offset, offset + length);
        } else if (kind === 4) image.writer!.flush();
        else image.writer!.flushAll();
        steps.push({ operations: storage.operations.length, disk, certain: kind >= 4 });
      }
      return { storage, steps };
    } finally {
      closeImage(description);
    }
  }

  it('has no wrong entry, and holds what was flushed', async () => {
    const random = new Random(SEED);
    temp.write('base', pattern(1, SIZE));
    const path = temp.at('image.qed');
    const how = ['-o', 'cluster_size=4k,table_size=2', '-b', temp.at('base'), '-F', 'raw'];
    qemuImg('create', '-q', '-f', 'qed', ...how, path);
    const { storage, steps } = work(path, random);
    for (const state of crashStates(storage.recording, STATES, random)) {
      writeFileSync(path, state.bytes);
      const { corruptions, checkErrors } = check({ path, filename: path, format: 'qed' });
      expect({ corruptions, checkErrors }, state.description).to.deep.equal({
        corruptions: 0,
        checkErrors: 0,
      });
      const disk = readImage(path, { format: 'qed' });
      const sure = steps.findLastIndex((step) => step.certain && step.operations <= state.at);
      const last = steps.findIndex((step) => step.operations >= state.at);
      const allowed = steps.slice(sure, last < 0 ? undefined : Math.max(last, sure) + 1);
      for (let at = 0; at < SIZE; at += SECTOR) {
        const found = disk.subarray(at, at + SECTOR);
        const fits = allowed.some((step) => found.equals(step.disk.subarray(at, at + SECTOR)));
        expect(fits, `sector at ${at} of a state at ${state.at}: ${state.description}`).to.equal(
          true,
        );
      }
      (await openDisk({ path, filename: path, format: 'qed' }, { writable: true })).close();
      expect(readFileSync(path)[16]! & 2, 'need-check').to.equal(0);
    }
  }).timeout(120_000);
});
