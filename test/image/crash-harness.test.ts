/** That the crash simulation passes writers that keep the order, and catches those that do not. */
import { expect } from 'chai';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { CrashDriver } from '../helpers/crash-driver.js';
import { type RunResult, runStates } from '../helpers/crash-run.js';
import { type DiskState, emptyState } from '../helpers/disk-history.js';
import type { Role } from '../helpers/host-roles.js';
import { unordered } from '../helpers/planted-faults.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { type Recording, RecordingStorage } from '../helpers/recording-storage.js';
import { markSectors } from '../helpers/sector-marks.js';
import { useTempFolder } from '../helpers/temp.js';
import {
  RIGHT_ORDER,
  TOY_CLUSTER_SIZE,
  TOY_SECTORS,
  type ToyOrder,
  ToyWriter,
  toyImage,
} from '../helpers/toy-writer.js';

const SAMPLES = 20;
const STATES = 150;

describe('crash simulation', () => {
  printSeed();
  const folder = useTempFolder();

  function record(
    order: ToyOrder,
    forgetFlush: boolean,
    seed: number,
  ): { recording: Recording; before: DiskState } {
    const random = new Random(seed);
    const image = toyImage(markSectors(0, 1, 1));
    const storage = new RecordingStorage(image.bytes, 'toy');
    const writer = new ToyWriter(image, storage, order);
    if (forgetFlush) writer.flush = () => {};
    const before = emptyState(new Int32Array(TOY_SECTORS).fill(1, 0, 1));
    const driver = new CrashDriver(writer, storage, before, TOY_CLUSTER_SIZE);
    for (let n = 0; n < 60; n++) {
      const first = random.below(TOY_SECTORS - 2);
      if (random.chance(0.3)) driver.discard(first, 2);
      else driver.write(first, 1 + random.below(2));
      if (random.chance(0.2)) driver.flush();
    }
    driver.flush();
    return { recording: storage.recording, before };
  }

  /** A few samples of writes and of states: each shows a fault of the `kinds`, or does not. */
  async function expectCaught(kinds: RegExp, run: (seed: number) => Promise<RunResult>) {
    const found: string[] = [];
    for (let seed = SEED; seed < SEED + SAMPLES && !kinds.test(found.join()); seed++) {
      found.push(...(await run(seed)).faults.map(({ kind }) => kind));
    }
    expect(found.join()).to.match(kinds);
  }

  function simulate(order: ToyOrder, forgetFlush: boolean, seed: number): Promise<RunResult> {
    const recorded = record(order, forgetFlush, seed);
    return runStates({ ...recorded, folder: folder.path, states: STATES, seed });
  }

  it('passes what keeps the order', async () => {
    const { faults, states } = await simulate(RIGHT_ORDER, false, SEED);
    expect(faults.map(({ what }) => what)).to.deep.equal([]);
    expect(states).to.be.at.least(STATES / 2);
  });

  const wrong: [string, ToyOrder, RegExp][] = [
    [
      'an L2 entry before the data',
      { ...RIGHT_ORDER, allocate: ['refcount', 'l2', 'flush', 'data'] },
      /lost/,
    ],
    [
      'an L2 entry before the refcount',
      { ...RIGHT_ORDER, allocate: ['data', 'l2', 'flush', 'refcount'] },
      /corrupt/,
    ],
    [
      'no flush before the L2 entry',
      { ...RIGHT_ORDER, allocate: ['data', 'refcount', 'l2'] },
      /lost|corrupt/,
    ],
    [
      'a refcount that goes down before the reference is gone',
      { ...RIGHT_ORDER, free: ['refcount', 'flush', 'l2'] },
      /corrupt/,
    ],
    ['no flush before a cluster is free', { ...RIGHT_ORDER, free: ['l2', 'refcount'] }, /corrupt/],
  ];
  for (const [name, order, kinds] of wrong) {
    it(`catches ${name}`, () => expectCaught(kinds, (seed) => simulate(order, false, seed)));
  }

  const planted: [Role, Role, RegExp][] = [
    ['data', 'l2', /lost|unreadable/],
    ['refcount block', 'l2', /corrupt/],
    ['l2', 'refcount block', /corrupt/],
  ];
  for (const [first, second, kinds] of planted) {
    it(`catches a ${second} write that is put before the ${first} write`, () =>
      expectCaught(kinds, (seed) => {
        const { recording, before } = record(RIGHT_ORDER, false, seed);
        const { recording: moved, moved: focus } = unordered(first, second)(recording);
        const words = { before, folder: folder.path, states: STATES, seed };
        return runStates({ ...words, recording: moved, focus });
      }));
  }

  it('catches a flush that is forgotten', () =>
    expectCaught(/lost/, (seed) => simulate(RIGHT_ORDER, true, seed)));
});

describe('recording storage', () => {
  it('grows, is cut, and grows by zeroes', () => {
    const storage = new RecordingStorage(new Uint8Array([1, 2]), 'file');
    const source = new IoBuffer(4);
    source.bytes.fill(7);
    storage.write(source, 0, 4, 6);
    storage.truncate(8);
    storage.truncate(12);
    expect([...storage.bytes]).to.deep.equal([1, 2, 0, 0, 0, 0, 7, 7, 0, 0, 0, 0]);
    expect([...storage.recording.initial]).to.deep.equal([1, 2]);
    expect(storage.operations.map(({ kind }) => kind)).to.deep.equal([
      'write',
      'truncate',
      'truncate',
    ]);
  });
});
