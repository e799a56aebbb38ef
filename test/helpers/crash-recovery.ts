/** What comes after a crash: the image is opened for writing again, and used. */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describeError, isExpected } from '#src/errors.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { checkStructure, type Fault, isDirty } from './crash-check.js';
import { readState, withWriter } from './crash-session.js';
import type { CrashState } from './crash-states.js';
import { type DiskState, Expectation } from './disk-history.js';
import { qemuImg } from './qemu.js';
import { readImage } from './read.js';
import { markSectors, readMarks, SECTOR_SIZE } from './sector-marks.js';

/** One state in so many is gone on with. */
const EVERY = 10;
/** A generation that no workload comes to. */
const LATER = 1_000_000;

/** Answers what goes on with a state, and judges what comes of it. */
export function goOn(
  folder: string,
  before: DiskState,
): (state: CrashState) => Promise<Fault | null> {
  let count = 0;
  return async (state) => {
    if (count++ % EVERY !== 0) return null;
    const path = join(folder, `again${count}.qcow2`);
    writeFileSync(path, state.bytes);
    try {
      return await useAgain(path, new Expectation(before, state.notes));
    } catch (error) {
      if (!isExpected(error)) throw error;
      return { kind: 'unreadable', what: `opened again: ${describeError(error)}` };
    } finally {
      rmSync(path, { force: true });
    }
  };
}

async function useAgain(path: string, expectation: Expectation): Promise<Fault | null> {
  // Who opens a dirty image for writing counts its references first.
  if (isDirty(path)) qemuImg('check', '-q', '-r', 'all', path);
  const written = withWriter(path, undefined, (image) => {
    const found = readState(image);
    const problem = expectation.disk(found);
    if (problem !== null) return { fault: problem.what, found };
    // Leaked and freed clusters are what the next allocations may stumble over.
    for (let first = 0; first + 3 <= found.length; first += Math.ceil(found.length / 40)) {
      const buffer = new IoBuffer(3 * SECTOR_SIZE);
      markSectors(first, 3, LATER).copy(buffer.bytes);
      image.writer!.write(first * SECTOR_SIZE, buffer.length, buffer, 0);
      found.fill(LATER, first, first + 3);
    }
    image.writer!.flushAll();
    return { fault: null, found };
  });
  if (written.fault !== null) return { kind: 'lost', what: `opened again: ${written.fault}` };
  const now = readMarks(readImage(path));
  const wrong = now.findIndex((value, sector) => value !== written.found[sector]);
  if (wrong >= 0) {
    const what = `written again: sector ${wrong} is ${now[wrong]}, not ${written.found[wrong]}`;
    return { kind: 'lost', what };
  }
  const fault = await checkStructure(path);
  return fault === null ? null : { ...fault, what: `written again: ${fault.what}` };
}
