/** The power fails in the middle of a repair: nothing that could be read is lost, and the next repair ends it. */
import { writeFileSync } from 'node:fs';
import { expect } from 'chai';
import type { CheckResult } from '#src/image/check-result.js';
import { checkImage } from '#src/image/qcow2/check.js';
import { runSteps } from '#src/image/steps.js';
import { readBitmaps } from '#src/image/qcow2/bitmaps.js';
import { readHeader } from '#src/image/qcow2/header.js';
import { isExpected } from '#src/errors.js';
import { MemoryStorage } from '#src/storage/memory.js';
import type { MutableStorage } from '#src/storage/storage.js';
import { CLUSTER, DAMAGES, type DamageCase, damaged } from '../helpers/check-damage.js';
import { lostClusters, readableClusters } from '../helpers/check-run.js';
import { crashStates } from '../helpers/crash-states.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { RecordingStorage } from '../helpers/recording-storage.js';
import { useTempFolder } from '../helpers/temp.js';

/** Wished for of each repair. */
const STATES = 10;

/** Null where the image cannot be checked. */
function repair(storage: MutableStorage): CheckResult | null {
  try {
    const header = readHeader(storage, 'check');
    const bitmaps = readBitmaps(storage, header);
    const image = { storage, header, bitmaps, limit: Number.POSITIVE_INFINITY };
    return runSteps(checkImage(image, 'all', () => {}));
  } catch (error) {
    if (isExpected(error)) return null;
    throw error;
  }
}

describe('check(): power failures in a repair', () => {
  const temp = useTempFolder();
  const random = new Random(SEED);
  printSeed();

  function readable(bytes: Uint8Array): Map<string, Buffer> {
    const path = temp.at('image');
    writeFileSync(path, bytes);
    return readableClusters(path, CLUSTER);
  }

  function expectKept(before: Map<string, Buffer>, truth: Map<string, Buffer>, after: Uint8Array) {
    const found = readable(after);
    expect(lostClusters(before, truth, found)).to.deep.equal([]);
  }

  function crash(test: DamageCase): void {
    const { bytes, whole } = damaged(test);
    const [before, truth] = [readable(bytes), readable(whole)];
    const storage = new RecordingStorage(bytes, 'image');
    repair(storage);
    const settled = repair(new MemoryStorage(Uint8Array.from(storage.bytes)));
    expect(storage.operations.at(-1)?.kind ?? 'flush', 'all is flushed').to.equal('flush');
    if (storage.operations.length === 0) return;
    for (const state of crashStates(storage.recording, STATES, random)) {
      try {
        expectKept(before, truth, state.bytes);
        const again = new MemoryStorage(Uint8Array.from(state.bytes));
        repair(again);
        expectKept(before, truth, again.bytes);
        const last = repair(again);
        expect(last?.corruptions, 'corruptions at last').to.equal(settled?.corruptions);
        expect(last?.leaks, 'leaks at last').to.equal(settled?.leaks);
        expect(last?.corruptionsFixed, 'a third repair').to.equal(0);
      } catch (error) {
        (error as Error).message += ` (${state.description})`;
        throw error;
      }
    }
  }

  for (const test of DAMAGES) it(`lose nothing of ${test.name}`, () => crash(test));
});
