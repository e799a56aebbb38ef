/**
 * Power failures while an image without counts (QED, qcow) is written to: whatever they leave opens, has no
 * wrong entry, and holds what was flushed; what was written since is there or is not, sector by sector.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { isExpected } from '#src/errors.js';
import { AttachedImage } from '#src/image/attach.js';
import { allocateImageMemory } from '#src/image/memory.js';
import { closeImage, openImage } from '#src/image/open.js';
import { compressCluster } from '#src/image/qcow2/compression.js';
import { COMPRESSION_TYPE } from '#src/image/qcow2/layout.js';
import { MIN_CACHE_SIZE } from '#src/shared/slice-cache.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { check } from '#src/tools/check.js';
import { openDisk } from '#src/tools/open-disk.js';
import { type CrashState, crashStates } from '../helpers/crash-states.js';
import { qemuImg } from '../helpers/qemu.js';
import { pattern, printSeed, Random, SEED } from '../helpers/random.js';
import { readImage } from '../helpers/read.js';
import { type Recording, RecordingStorage } from '../helpers/recording-storage.js';
import { useTempFolder } from '../helpers/temp.js';

const SIZE = 512 << 10;
const SECTOR = 512;
const CLUSTER = 4096;
const STEPS = 60;
const STATES = 100;
const STATES_OF_FAULT = 300;

interface Kind {
  readonly format: 'qed' | 'qcow';
  readonly options?: string;
  readonly backed: boolean;
}

const KINDS: readonly Kind[] = [
  { format: 'qed', options: 'cluster_size=4k,table_size=2', backed: true },
  { format: 'qcow', backed: true },
  { format: 'qcow', backed: false },
];

/** The disk as it is to be once so many operations were done; `certain`: after a flush. */
interface Step {
  readonly operations: number;
  readonly disk: Buffer;
  readonly certain: boolean;
}

describe('an image without counts after a crash', () => {
  const temp = useTempFolder();
  printSeed();

  for (const kind of KINDS) {
    const name = `${kind.format}${kind.backed ? ' over a backing file' : ''}`;
    it(`${name}: has no wrong entry, and holds what was flushed`, async () => {
      const random = new Random(SEED);
      const path = make(kind);
      const { recording, steps } = work(path, kind, random);
      for (const state of crashStates(recording, STATES, random)) {
        expect(await problemOf(path, kind, state, steps), state.description).to.equal(null);
      }
    }).timeout(120_000);

    it(`${name}: is seen to be broken where nothing waits for data`, async () => {
      const random = new Random(1);
      const path = make(kind);
      const { recording, steps } = work(path, kind, random);
      const broken = withoutOrder(recording, steps);
      for (const state of crashStates(broken.recording, STATES_OF_FAULT, random)) {
        if ((await problemOf(path, kind, state, broken.steps)) !== null) return;
      }
      expect.fail('no state shows it');
    }).timeout(120_000);
  }

  function make({ format, options, backed }: Kind): string {
    temp.write('base', pattern(1, SIZE));
    const path = temp.at('image');
    const how = options === undefined ? [] : ['-o', options];
    const below = backed ? ['-b', temp.at('base'), '-F', 'raw'] : [];
    qemuImg('create', '-q', '-f', format, ...how, ...below, path, String(SIZE));
    return path;
  }

  function work(path: string, { format, backed }: Kind, random: Random) {
    const { description } = openImage(path, { format, writable: true, lock: 'write' });
    try {
      const storage = new RecordingStorage(readFileSync(path), format);
      const options = { cacheSize: MIN_CACHE_SIZE, owners: 1, storage };
      const image = new AttachedImage(description, allocateImageMemory(description, options), 1, {
        storage,
      });
      let disk = backed ? readFileSync(temp.at('base')) : Buffer.alloc(SIZE);
      const steps: Step[] = [{ operations: 0, disk, certain: true }];
      for (let n = 0; n < STEPS; n++) {
        disk = Buffer.from(disk);
        const packs = format === 'qcow' && !backed && random.below(3) === 0;
        const certain = packs ? pack(image, disk, n, random) : change(image, disk, n, random);
        steps.push({ operations: storage.operations.length, disk, certain });
      }
      return { recording: storage.recording, steps };
    } finally {
      closeImage(description);
    }
  }

  function change({ writer }: AttachedImage, disk: Buffer, n: number, random: Random): boolean {
    const offset = random.below(SIZE / SECTOR) * SECTOR;
    const length = Math.min(SIZE - offset, (1 + random.below(40)) * SECTOR);
    const kind = random.below(6);
    if (kind < 3) {
      const source = new IoBuffer(length);
      source.bytes.fill(1 + n);
      writer!.write(offset, length, source, 0);
      disk.fill(1 + n, offset, offset + length);
    } else if (kind === 3) {
      writer!.zero(offset, length);
      disk.fill(0, offset, offset + length);
    } else if (kind === 4) writer!.flush();
    else writer!.flushAll();
    return kind >= 4;
  }

  function pack({ writer }: AttachedImage, disk: Buffer, n: number, random: Random): boolean {
    const offset = random.below(SIZE / CLUSTER) * CLUSTER;
    disk.fill(1 + n, offset, offset + CLUSTER);
    const bytes = disk.subarray(offset, offset + CLUSTER);
    const packed = compressCluster(COMPRESSION_TYPE.ZLIB, bytes)!;
    writer!.writeCompressed(offset, packed, packed.length);
    return false;
  }

  /** Flushes stay at the ends of steps alone. */
  function withoutOrder(recording: Recording, steps: readonly Step[]) {
    const ends = new Set(steps.filter(({ certain }) => certain).map((step) => step.operations));
    const kept: Recording['operations'][number][] = [];
    const counts = recording.operations.map((operation, index) => {
      if (operation.kind !== 'flush' || ends.has(index + 1)) kept.push(operation);
      return kept.length;
    });
    const moved = steps.map((step) => ({
      ...step,
      operations: step.operations === 0 ? 0 : counts[step.operations - 1]!,
    }));
    return { recording: { ...recording, operations: kept }, steps: moved };
  }

  /** What is wrong with a state; null where nothing is. */
  async function problemOf(
    path: string,
    { format }: Kind,
    state: CrashState,
    steps: readonly Step[],
  ): Promise<string | null> {
    writeFileSync(path, state.bytes);
    const spec = { path, filename: path, format };
    if (format === 'qed') {
      const { corruptions, checkErrors } = check(spec);
      if (corruptions + checkErrors > 0) return `${corruptions} corruptions`;
    }
    let disk: Buffer;
    try {
      disk = readImage(path, { format });
    } catch (error) {
      if (!isExpected(error)) throw error;
      return error.message;
    }
    const sure = steps.findLastIndex((step) => step.certain && step.operations <= state.at);
    const last = steps.findIndex((step) => step.operations >= state.at);
    const allowed = steps.slice(sure, last < 0 ? undefined : Math.max(last, sure) + 1);
    for (let at = 0; at < SIZE; at += SECTOR) {
      const found = disk.subarray(at, at + SECTOR);
      if (allowed.some((step) => found.equals(step.disk.subarray(at, at + SECTOR)))) continue;
      return `sector at ${at} of a state at ${state.at}`;
    }
    (await openDisk(spec, { writable: true })).close();
    if (format === 'qed' && (readFileSync(path)[16]! & 2) !== 0) return 'need-check';
    return null;
  }
});
