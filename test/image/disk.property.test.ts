import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import type { Disk } from '#src/image/disk.js';
import { chainPlan, type LayerPlan, modelOf, writeChain } from '../helpers/chains.js';
import { qemuRead } from '../helpers/qemu.js';
import { printSeed, SEED } from '../helpers/random.js';
import { dataRuns, readDisk, withImage } from '../helpers/read.js';

const RUNS = Number(process.env.QCOW2FS_PROPERTY_RUNS ?? 300);

function withChain<T>(chain: readonly LayerPlan[], use: (disk: Disk, path: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), 'qcow2fs-chain-'));
  try {
    const path = writeChain(chain, (name) => join(folder, name));
    const format = chain[0]!.format;
    return withImage(path, ({ image }) => use(image.disk, path), { format });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Where two buffers differ first. */
function difference(found: Buffer, expected: Buffer): string {
  if (found.equals(expected)) return 'none';
  if (found.length !== expected.length) return `${found.length} of ${expected.length} bytes`;
  const at = found.findIndex((byte, index) => byte !== expected[index]);
  return `at ${at}: ${found[at]} instead of ${expected[at]}`;
}

const part = fc.double({ min: 0, max: 1, noNaN: true });
const ranges = fc.array(fc.tuple(part, part), { maxLength: 12 });

describe('Disk', () => {
  printSeed();

  it('read() agrees with the model of any chain, anywhere', () => {
    const property = fc.property(chainPlan, ranges, (chain, places) => {
      const model = modelOf(chain);
      withChain(chain, (disk) => {
        expect(disk.size).to.equal(model.length);
        expect(difference(readDisk(disk), model)).to.equal('none');
        for (const [start, span] of places) {
          const offset = Math.floor(start * disk.size);
          const length = Math.floor(span * (disk.size - offset));
          const expected = model.subarray(offset, offset + length);
          expect(difference(readDisk(disk, offset, length), expected)).to.equal('none');
        }
      });
    });
    fc.assert(property, { seed: SEED, numRuns: RUNS });
  });

  it('seek() ends, tells data and holes by turns, and holes read as zeroes', () => {
    const property = fc.property(chainPlan, part, (chain, place) => {
      const model = modelOf(chain);
      withChain(chain, (disk) => {
        let at = 0;
        for (const { start, end } of dataRuns(disk)) {
          expect(model.subarray(at, start).every((byte) => byte === 0)).to.equal(true);
          at = end;
        }
        expect(model.subarray(at).every((byte) => byte === 0)).to.equal(true);
        seekAgreesAt(disk, Math.floor(place * disk.size));
      });
    });
    fc.assert(property, { seed: SEED, numRuns: RUNS });
  });

  it('reads chains as QEMU does', () => {
    const property = fc.property(chainPlan, (chain) => {
      // A raw image is the model itself.
      if (chain[0]!.format === 'raw') return;
      withChain(chain, (disk, path) => {
        // QEMU takes data files from its own folder.
        if (chain.some(({ dataFile, format }) => dataFile && format === 'qcow2')) return;
        expect(difference(readDisk(disk), qemuRead(path))).to.equal('none');
      });
    });
    fc.assert(property, { seed: SEED, numRuns: Math.ceil(RUNS / 10) });
  });
});

/** What `seek` says from the middle of a run is what it says of the whole run. */
function seekAgreesAt(disk: Disk, offset: number): void {
  if (disk.size === 0) return;
  const data = disk.seek(offset, false);
  const hole = disk.seek(offset, true);
  // One of the two is here; the other is where this run ends.
  expect(Math.min(data, hole)).to.equal(offset);
  const runs = dataRuns(disk);
  const run = runs.find(({ start, end }) => start <= offset && offset < end);
  const next = runs.find(({ start }) => start > offset);
  expect(hole).to.equal(run?.end ?? offset);
  expect(data).to.equal(run === undefined ? (next?.start ?? disk.size) : offset);
}
