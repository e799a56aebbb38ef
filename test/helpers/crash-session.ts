/** Runs workloads with the real writer over a recording, and goes on where a crash ended one. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describeError, isExpected } from '#src/errors.js';
import { AttachedImage } from '#src/image/attach.js';
import {
  type ImageDescription,
  layerClusterSize,
  layerCompression,
  type Qcow2Description,
} from '#src/image/description.js';
import { allocateImageMemory } from '#src/image/memory.js';
import { closeImage, openImage } from '#src/image/open.js';
import { MIN_CACHE_SIZE } from '#src/shared/slice-cache.js';
import { runSteps } from '#src/image/steps.js';
import { type AmendRequest, amendSteps, describeAnew } from '#src/tools/amend.js';
import { compactLayer } from '#src/tools/compact.js';
import type { MutableStorage } from '#src/storage/storage.js';
import { CrashDriver } from './crash-driver.js';
import { DATA_FILE, makeCrashImage } from './crash-images.js';
import type { Workload } from './crash-workloads.js';
import { type DiskState, Expectation } from './disk-history.js';
import { encryptedSpec } from './encrypted.js';
import { imageOf } from './image-words.js';
import { Random } from './random.js';
import { readDisk, withImage } from './read.js';
import { type Recording, RecordingStorage } from './recording-storage.js';
import { readMarks } from './sector-marks.js';

/** More changes than a workload makes. */
const LATER = 1_000_000;
/** Bytes: several batches for small images. */
const COMPACT_BATCH = 64 << 10;

/** What is written to instead of an image's files. */
interface Storages {
  readonly storage: MutableStorage;
  readonly dataStorage?: MutableStorage;
}

/** Attaches by a description that is true now. */
type Attach = (now: ImageDescription) => AttachedImage;

export interface RecordedWorkload {
  readonly recording: Recording;
  readonly data: Recording | undefined;
  readonly before: DiskState;
  /** Calls that the image refused. */
  readonly refused: readonly string[];
  /** What is wrong without any crash, or null. */
  readonly problem: string | null;
}

/** A folder in memory: thousands of states are written there. */
export function makeStateFolder(): string {
  return mkdtempSync(join('/dev/shm', 'qcow2fs-crash-'));
}

/**
 * Opens the image at `path` for writing, repaired if it must be, and closes it again. Its writes go
 * to what `storageOf` makes of it then, or to the file.
 */
export function withWriter<T>(
  path: string,
  storageOf: ((description: ImageDescription) => Storages) | null,
  use: (image: AttachedImage, attach: Attach) => T,
): T {
  const { description } = openImage(imageOf(path), { writable: true, lock: 'write' });
  try {
    const instead = storageOf === null ? {} : storageOf(description);
    const sizes = { cacheSize: MIN_CACHE_SIZE, owners: 1 };
    const attach = (now: ImageDescription) => {
      const memory = allocateImageMemory(now, { ...sizes, ...instead });
      return new AttachedImage(now, memory, 1, instead);
    };
    return use(attach(description), attach);
  } finally {
    closeImage(description);
  }
}

/** What the image holds, as its threads would read it. */
export function readState(image: AttachedImage): Int32Array {
  return within(image, () => readMarks(readDisk(image.disk)));
}

function within<T>(image: AttachedImage, use: () => T): T {
  image.enter();
  try {
    return use();
  } finally {
    image.leave();
  }
}

/** The disk and its snapshots, as what is certain from now on. */
export function readWholeState(path: string): DiskState {
  return withImage(path, ({ image }) => {
    const sectors = readMarks(readDisk(image.disk));
    const snapshots = image.snapshots().map(({ view, snapshot }, takenAt) => ({
      name: snapshot.name,
      sectors: readMarks(readDisk(image.snapshotDisk(view))),
      takenAt,
    }));
    // Names follow from this number, and must be new.
    return { sectors, snapshots, changes: LATER };
  });
}

/** Makes the workload's image in `folder` and runs the workload on it. */
export function recordWorkload(workload: Workload, seed: number, folder: string): RecordedWorkload {
  const path = join(folder, 'image.qcow2');
  const before = makeCrashImage(path, workload.image);
  try {
    return recordOn(path, before, workload, seed);
  } finally {
    rmSync(path);
    rmSync(join(folder, DATA_FILE), { force: true });
  }
}

/** Runs the workload on the image at `path`, which stays as it is but for a repair. */
export function recordOn(
  path: string,
  before: DiskState,
  workload: Workload,
  seed: number,
): RecordedWorkload {
  let storage: RecordingStorage | undefined;
  let dataStorage: RecordingStorage | undefined;
  const storageOf = ({ layers: [top] }: ImageDescription) => {
    const clock = { now: 0 };
    storage = new RecordingStorage(readFileSync(path), path, clock);
    if (top.format !== 'qcow2' || top.dataFile === null) return { storage };
    const data = top.dataFile.path;
    dataStorage = new RecordingStorage(readFileSync(data), data, clock);
    return { storage, dataStorage };
  };
  return withWriter(path, storageOf, (opened, attach) => {
    let image = opened;
    const viewAt = (index: number) => within(image, () => image.snapshots()[index]!.view);
    const amend = (request: AmendRequest | 'compact') => {
      image.writer!.close();
      const { description } = image;
      // The only key slot is written over, too.
      const options = { keys: encryptedSpec(path).keys!, force: true };
      const target = { storage: storage!, description, options };
      const now = { ...target, description: describeAnew(target), attach };
      let error: unknown;
      try {
        if (request === 'compact') {
          const layer = description.layers[0] as Qcow2Description;
          runSteps(compactLayer(storage!, layer, false, { batch: COMPACT_BATCH }));
        } else for (const _ of amendSteps(now, request));
      } catch (thrown) {
        error = thrown;
      }
      // Some steps may be done, also where a later one was refused.
      image = attach(describeAnew(target));
      return { writer: image.writer!, error };
    };
    const [top] = image.description.layers;
    const driver = new CrashDriver(
      image.writer!,
      storage!,
      before,
      layerClusterSize(top)!,
      viewAt,
      layerCompression(top),
      amend,
    );
    const { backing } = image.disk;
    if (backing !== null) driver.below = within(image, () => readMarks(readDisk(backing)));
    const problem = runWorkload(workload, driver, () => image, new Random(seed));
    const data = dataStorage?.recording;
    return { recording: storage!.recording, data, before, refused: driver.refused, problem };
  });
}

function runWorkload(
  workload: Workload,
  driver: CrashDriver,
  image: () => AttachedImage,
  random: Random,
): string | null {
  try {
    workload.run(driver, random);
    return new Expectation(driver.state, []).disk(readState(image()))?.what ?? null;
  } catch (error) {
    // What was recorded up to there is as good as any.
    return isExpected(error) ? describeError(error) : String((error as Error).stack);
  }
}
