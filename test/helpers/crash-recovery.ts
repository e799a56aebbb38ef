/** What comes after a crash: the image is repaired, opened and used again, and may crash again. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describeError, isExpected } from '#src/errors.js';
import { MAGIC, readHeader as readQedHeader } from '#src/image/qed/header.js';
import { checkQed } from '#src/image/qed/check.js';
import { readBitmaps } from '#src/image/qcow2/bitmaps.js';
import { readHeader } from '#src/image/qcow2/header.js';
import { rebuildRefcounts } from '#src/image/qcow2/rebuild.js';
import { readSnapshots } from '#src/image/qcow2/snapshots.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { checkStructure, type Fault, isDirty, placeState } from './crash-check.js';
import { DATA_FILE } from './crash-images.js';
import { runStates } from './crash-run.js';
import { readState, readWholeState, recordOn, withWriter } from './crash-session.js';
import type { CrashState } from './crash-states.js';
import type { Workload } from './crash-workloads.js';
import { type DiskState, Expectation } from './disk-history.js';
import { readImage } from './read.js';
import { type Recording, RecordingStorage } from './recording-storage.js';
import { markSectors, readMarks, SECTOR_SIZE } from './sector-marks.js';

/** One state in so many is written to again. */
const USE_EVERY = 10;
/** One dirty state in so many is repaired with crashes. */
const REPAIR_EVERY = 20;
/** With one state in so many the workload goes on, and crashes again. */
const REPEAT_EVERY = 50;
/** States that are made of each second crash. */
const STATES = 12;
/** A generation that no workload comes to. */
const LATER = 1_000_000;

export interface RecoveryOptions {
  readonly folder: string;
  readonly before: DiskState;
  readonly workload: Workload;
  readonly seed: number;
}

/** Answers what goes on with a state, and judges what comes of it. */
export function goOn(options: RecoveryOptions): (state: CrashState) => Promise<Fault | null> {
  let count = 0;
  let dirty = 0;
  return async (state) => {
    const number = count++;
    const { path, remove } = placeState(state, options.folder);
    try {
      if (isDirty(path) && dirty++ % REPAIR_EVERY === 0) {
        const fault = await crashInRepair(path, options);
        if (fault !== null) return fault;
      }
      if (number % REPEAT_EVERY === 1) return await crashAgain(path, number, options);
      if (number % USE_EVERY !== 0) return null;
      return await useAgain(path, new Expectation(options.before, state.notes));
    } catch (error) {
      if (!isExpected(error)) throw error;
      return { kind: 'unreadable', what: `opened again: ${describeError(error)}` };
    } finally {
      remove();
    }
  };
}

/** Writes all over the image, as leaked and freed clusters may not like. */
async function useAgain(path: string, expectation: Expectation): Promise<Fault | null> {
  const written = withWriter(path, null, (image) => {
    const found = readState(image);
    const problem = expectation.disk(found);
    if (problem !== null) return { fault: problem.what, found };
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
  return within('written again', await checkStructure(path));
}

/** The power fails in the middle of the repair: nothing of the disk may change. */
async function crashInRepair(path: string, { folder, seed }: RecoveryOptions) {
  const before = readWholeState(path);
  const storage = new RecordingStorage(readFileSync(path), path);
  if (MAGIC.equals(storage.bytes.subarray(0, MAGIC.length))) {
    checkQed(storage, readQedHeader(storage), true);
  } else {
    const header = readHeader(storage);
    const snapshots = readSnapshots(storage, header);
    rebuildRefcounts(storage, header, snapshots, readBitmaps(storage, header));
  }
  const { recording } = storage;
  const words = {
    recording,
    data: unchangedData(path),
    before,
    folder,
    states: STATES,
    seed,
    first: true,
  };
  return within('crash in repair', (await runStates(words)).faults[0]);
}

function unchangedData(path: string): Recording | undefined {
  const data = join(dirname(path), DATA_FILE);
  if (!existsSync(data)) return undefined;
  return { initial: readFileSync(data), operations: [], times: [] };
}

/** The workload again, on what the first crash left. */
async function crashAgain(
  path: string,
  number: number,
  { folder, workload, seed }: RecoveryOptions,
): Promise<Fault | null> {
  const again = seed + number;
  const recorded = recordOn(path, readWholeState(path), workload, again);
  const { recording, data, before, problem } = recorded;
  if (problem !== null) return { kind: 'lost', what: `workload again: ${problem}` };
  const words = { recording, data, before, folder, states: STATES, seed: again, first: true };
  return within('second crash', (await runStates(words)).faults[0]);
}

function within(where: string, fault: Fault | null | undefined): Fault | null {
  return fault === null || fault === undefined
    ? null
    : { ...fault, what: `${where}: ${fault.what}` };
}
