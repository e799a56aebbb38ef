/** What is done to images before the power fails: one workload for each way to change metadata. */
import type { CrashDriver } from './crash-driver.js';
import { LUKS_KEY_SLOTS } from '#src/image/crypto/luks-header.js';
import { AES_OPTIONS, luksOptions } from './encrypted.js';
import type { ImageKind } from './crash-images.js';
import type { Random } from './random.js';

export interface Workload {
  readonly name: string;
  readonly image: ImageKind;
  readonly run: (driver: CrashDriver, random: Random) => void;
}

const KIB = 2;
const MIB = 1024 * KIB;

/** Versions of the format, and the feature that changes the order of writes; and the formats without counts. */
const VERSIONS = {
  v2: ['compat=0.10'],
  v3: ['compat=1.1'],
  lazy: ['compat=1.1', 'lazy_refcounts=on'],
  qed: ['table_size=2'],
  qcow: [],
} as const;
type Version = keyof typeof VERSIONS;
const ALL: readonly Version[] = ['v2', 'v3', 'lazy'];
const V3: readonly Version[] = ['v3', 'lazy'];

interface Family {
  readonly name: string;
  readonly versions: readonly Version[];
  /** Of qcow that follows from what lies below. */
  readonly clusters: readonly string[];
  /** Sectors. */
  readonly size: number;
  readonly content: ImageKind['content'];
  readonly options?: readonly string[];
  readonly bitmaps?: boolean;
  readonly run: Workload['run'];
}

function someSectors(driver: CrashDriver, random: Random, clusters = 2): [number, number] {
  const most = Math.max(4, Math.round(clusters * driver.clusterSectors));
  const count = 1 + random.below(Math.min(most, driver.size));
  return [random.below(driver.size - count + 1), count];
}

function maybeFlush(driver: CrashDriver, random: Random, probability = 0.2): void {
  if (!random.chance(probability)) return;
  if (random.chance(0.2)) driver.flushAll();
  else driver.flush();
}

/** Does one of the steps, by chance, again and again. */
function repeat(
  times: number,
  ...steps: readonly ((driver: CrashDriver, random: Random) => void)[]
): Workload['run'] {
  return (driver, random) => {
    for (let n = 0; n < times; n++) {
      random.pick(steps)(driver, random);
      maybeFlush(driver, random);
    }
    driver.flushAll();
  };
}

const write: Workload['run'] = (driver, random) => {
  driver.write(...someSectors(driver, random));
};
const discard: Workload['run'] = (driver, random) => {
  driver.discard(...someSectors(driver, random, 4));
};
/** A cluster that is written compressed, and was emptied for it more often than not. */
const writeCompressed: Workload['run'] = (driver, random) => {
  const { clusterSectors, size } = driver;
  const cluster = random.below(Math.ceil(size / clusterSectors));
  const first = cluster * clusterSectors;
  if (random.chance(0.7)) driver.discard(first, Math.min(clusterSectors, size - first));
  driver.writeCompressed(cluster);
};
const zero: Workload['run'] = (driver, random) => driver.zero(...someSectors(driver, random, 4));
const mark: Workload['run'] = (driver, random) => {
  const clusters = Math.ceil(driver.size / driver.clusterSectors);
  const first = random.below(clusters);
  driver.markZero(first, 1 + random.below(Math.min(4, clusters - first)), random.chance(0.5));
};
const letGo: Workload['run'] = (driver, random) => {
  const clusters = Math.ceil(driver.size / driver.clusterSectors);
  const first = random.below(clusters);
  driver.discardClusters(first, 1 + random.below(Math.min(4, clusters - first)));
};
const preallocate: Workload['run'] = (driver, random) => {
  driver.preallocate(...someSectors(driver, random, 4));
};

/** Parts of clusters become zero, and are certain at once: no table changes, only data. */
const erasePart: Workload['run'] = (driver, random) => {
  const [first, count] = someSectors(driver, random, 0.4);
  if (random.chance(0.5)) driver.zero(first, count);
  else driver.discard(first, count);
  if (random.chance(0.7)) driver.flush();
};

function resize(most: number): Workload['run'] {
  return (driver, random) => {
    const smaller = random.chance(0.3);
    const size = smaller
      ? 1 + random.below(driver.size)
      : driver.size + random.below(Math.max(1, most - driver.size));
    driver.resize(size);
  };
}

const grow: Workload['run'] = (driver, random) => {
  if (driver.size < 2 * MIB && random.chance(0.3)) driver.resize(driver.size + random.below(200));
};
const editBitmaps: Workload['run'] = (driver, random) => driver.editBitmaps(random);
const closeImage: Workload['run'] = (driver) => driver.close();

/** Grows a little, with the new part's space; or is cut. */
const resizeWithSpace: Workload['run'] = (driver, random) => {
  const { clusterSectors, size } = driver;
  if (random.chance(0.4) && size > 8) driver.resize(size - random.below(size >> 1));
  else {
    const mode = random.pick(['metadata', 'falloc', 'full'] as const);
    driver.resize(size + 1 + random.below(12 * clusterSectors), mode);
  }
};

const makeEmpty: Workload['run'] = (driver) => driver.makeEmpty();

const snapshot: Workload['run'] = (driver) => {
  const { snapshots, changes } = driver.state;
  if (snapshots.length < 6) driver.createSnapshot(`s${changes}`);
};
const saveVm: Workload['run'] = (driver, random) => {
  const { snapshots, changes } = driver.state;
  if (snapshots.length < 4) driver.saveVm(`v${changes}`, 1 + random.below(300));
};
const deleteSnapshot: Workload['run'] = (driver, random) => {
  const { length } = driver.state.snapshots;
  if (length > 0) driver.deleteSnapshot(random.below(length));
};
const rename: Workload['run'] = (driver, random) => {
  const { changes, snapshots } = driver.state;
  const { length } = snapshots;
  // Longer and shorter ones: the table's size changes with them.
  const name = `r${changes}${'x'.repeat(random.below(40))}`;
  if (length > 0) driver.renameSnapshot(random.below(length), name);
};
const revert: Workload['run'] = (driver, random) => {
  const { length } = driver.state.snapshots;
  if (length > 0) driver.revertTo(random.below(length));
};

const compact: Workload['run'] = (driver) => driver.compact();
/** Holes all over, and what was written last at the end; then all of it moves. */
function fragmented(...steps: readonly Workload['run'][]): Workload['run'] {
  return (driver, random) => {
    for (let n = 0; n < 2; n++) {
      repeat(25, write, discard, ...steps)(driver, random);
      compact(driver, random);
    }
  };
}

const VERSION = [2, 3] as const;
/** To the other version and back: zero clusters come, and go. */
const changeVersion: Workload['run'] = (driver, random) => {
  driver.amend({ version: random.pick(VERSION), refcountBits: 16 });
};
const WIDTHS = [1, 2, 4, 8, 16, 32, 64];
const changeWidth: Workload['run'] = (driver, random) => {
  const lazyRefcounts = random.pick([true, false]);
  driver.amend({ version: 3, refcountBits: random.pick(WIDTHS), lazyRefcounts });
};

/** Key slots that the same secret opens: made, all others erased, and the only one written over. */
const changeKeySlots: Workload['run'] = (driver, random) => {
  const [slot, other] = [random.below(LUKS_KEY_SLOTS), random.below(LUKS_KEY_SLOTS)];
  const make = { state: 'active', newSecret: 's', oldSecret: undefined, iterTime: 0 };
  const erase = { ...make, state: 'inactive', newSecret: undefined, iterTime: undefined };
  for (const made of [other, slot]) driver.amend({ keySlots: { ...make, slot: made } });
  for (const erased of new Set([0, other])) {
    if (erased !== slot) driver.amend({ keySlots: { ...erase, slot: erased } });
  }
  driver.amend({ keySlots: { ...make, slot } });
};

/** Fills the disk from its start: host clusters enough that tables of refcounts grow. */
const fill: Workload['run'] = (driver, random) => {
  for (let at = 0; at < driver.size; ) {
    const count = Math.min(driver.size - at, 32 + random.below(128));
    driver.write(at, count);
    at += count;
    maybeFlush(driver, random, 0.1);
  }
  driver.flushAll();
};

const FAMILIES: readonly Family[] = [
  {
    name: 'growth',
    versions: ALL,
    clusters: ['512', '4k', '64k'],
    size: 2 * MIB,
    content: 'empty',
    run: repeat(80, write),
  },
  {
    name: 'growth',
    versions: ['qed', 'qcow'],
    clusters: ['4k'],
    size: 2 * MIB,
    content: 'empty',
    run: repeat(80, write, write, write, zero),
  },
  {
    name: 'cow-backing',
    versions: ['qed'],
    clusters: ['4k', '64k'],
    size: MIB,
    content: 'over backing file',
    run: repeat(60, write, write, write, discard, zero, mark, preallocate, grow),
  },
  {
    name: 'cow-backing',
    versions: ['qcow'],
    clusters: ['512'],
    size: MIB,
    content: 'over backing file',
    run: repeat(60, write, write, write, writeCompressed, discard, zero, preallocate),
  },
  {
    name: 'cow-backing',
    versions: ALL,
    clusters: ['512', '4k', '64k'],
    size: MIB,
    content: 'over backing file',
    run: repeat(60, write, write, write, discard, zero),
  },
  {
    name: 'cow-snapshot',
    versions: ALL,
    clusters: ['512', '4k', '64k'],
    size: MIB,
    content: 'filled',
    run: (driver, random) => {
      for (let n = 0; n < 3; n++) {
        snapshot(driver, random);
        repeat(16, write)(driver, random);
      }
    },
  },
  {
    name: 'snapshots',
    versions: ALL,
    clusters: ['512', '4k', '64k'],
    size: MIB / 2,
    content: 'filled',
    run: repeat(60, write, write, discard, snapshot, deleteSnapshot, rename, revert),
  },
  {
    name: 'vm-states',
    versions: ALL,
    clusters: ['512', '4k', '64k'],
    size: MIB / 2,
    content: 'filled',
    run: repeat(40, write, saveVm, saveVm, deleteSnapshot, revert, resize(MIB)),
  },
  {
    name: 'discard',
    versions: ALL,
    clusters: ['512', '4k', '64k'],
    size: MIB,
    content: 'filled',
    run: repeat(100, write, discard),
  },
  {
    name: 'compressed',
    versions: ALL,
    clusters: ['4k', '64k'],
    size: 2 * MIB,
    content: 'compressed',
    run: repeat(80, write, write, write, discard),
  },
  {
    name: 'compressed-writes',
    versions: ALL,
    clusters: ['512', '4k', '64k'],
    size: MIB,
    content: 'over backing file',
    run: repeat(
      90,
      ...[writeCompressed, writeCompressed, writeCompressed, writeCompressed],
      ...[write, discard, snapshot, deleteSnapshot, revert],
    ),
  },
  {
    name: 'compressed-writes',
    versions: ['qcow'],
    clusters: ['4k'],
    size: MIB,
    content: 'compressed',
    run: repeat(80, writeCompressed, writeCompressed, write, write, discard, zero),
  },
  {
    name: 'compressed-zstd',
    versions: ['v3'],
    clusters: ['16k'],
    size: MIB,
    content: 'compressed',
    options: ['compression_type=zstd', 'extended_l2=on'],
    run: repeat(60, writeCompressed, writeCompressed, writeCompressed, write, discard),
  },
  {
    name: 'data-file',
    versions: V3,
    clusters: ['512', '4k', '64k'],
    size: MIB,
    content: 'over backing file',
    options: ['data_file=data.raw'],
    run: repeat(80, write, write, write, discard, zero, preallocate, resize(2 * MIB)),
  },
  {
    name: 'data-file-subclusters',
    versions: ['v3'],
    clusters: ['16k'],
    size: MIB,
    content: 'filled',
    options: ['data_file=data.raw', 'extended_l2=on'],
    run: repeat(80, write, write, write, discard, zero),
  },
  {
    name: 'raw-data-file',
    versions: ['v3'],
    clusters: ['512', '4k', '64k'],
    size: MIB,
    content: 'filled',
    options: ['data_file=data.raw', 'data_file_raw=on'],
    run: repeat(80, write, write, write, discard, zero, preallocate, resize(2 * MIB)),
  },
  {
    name: 'encrypted',
    versions: ['v2', 'v3'],
    clusters: ['512', '4k'],
    size: MIB,
    content: 'over backing file',
    options: [AES_OPTIONS],
    run: repeat(60, write, write, write, discard, zero, preallocate, resizeWithSpace, snapshot),
  },
  {
    name: 'encrypted',
    versions: ['qcow'],
    clusters: ['4k'],
    size: MIB,
    content: 'filled',
    options: [AES_OPTIONS],
    run: repeat(60, write, write, write, discard, zero, preallocate),
  },
  {
    name: 'luks',
    versions: ['v2', 'v3'],
    clusters: ['4k'],
    size: MIB,
    content: 'over backing file',
    options: [
      luksOptions('encrypt.iter-time=0,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc'),
    ],
    run: repeat(60, write, write, write, discard, zero, preallocate, resizeWithSpace, snapshot),
  },
  {
    name: 'luks-subclusters',
    versions: ['v3'],
    clusters: ['16k'],
    size: MIB,
    content: 'filled',
    options: [luksOptions('encrypt.iter-time=0,encrypt.cipher-alg=aes-128'), 'extended_l2=on'],
    run: repeat(60, write, write, write, discard, zero, snapshot, deleteSnapshot),
  },
  {
    name: 'luks-key-slots',
    versions: ['v3'],
    clusters: ['512'],
    size: MIB / 8,
    content: 'filled',
    options: [luksOptions('encrypt.iter-time=0,encrypt.cipher-alg=aes-128')],
    run: (driver, random) => {
      for (const step of [write, changeKeySlots, write]) step(driver, random);
    },
  },
  {
    name: 'refcount-growth',
    versions: V3,
    clusters: ['512'],
    size: 3 * MIB,
    content: 'empty',
    options: ['refcount_bits=64'],
    run: fill,
  },
  {
    name: 'resize',
    versions: ALL,
    clusters: ['512', '4k'],
    size: MIB / 2,
    content: 'filled',
    run: repeat(50, write, write, resize(4 * MIB)),
  },
  {
    name: 'resize-backing',
    versions: ALL,
    clusters: ['512', '4k'],
    size: MIB / 2,
    content: 'over backing file',
    run: repeat(50, write, write, resize(2 * MIB), discard),
  },
  {
    name: 'resize-space',
    versions: ALL,
    clusters: ['512', '4k'],
    size: MIB / 2,
    content: 'over backing file',
    run: repeat(50, write, write, discard, resizeWithSpace),
  },
  {
    name: 'resize-space-subclusters',
    versions: V3,
    clusters: ['16k'],
    size: MIB / 2,
    content: 'filled',
    options: ['extended_l2=on'],
    run: repeat(40, write, write, discard, resizeWithSpace),
  },
  {
    name: 'resize-space-data-file',
    versions: ['v3'],
    clusters: ['4k'],
    size: MIB / 2,
    content: 'filled',
    options: ['data_file=data.raw'],
    run: repeat(50, write, write, discard, resizeWithSpace),
  },
  {
    name: 'empty',
    versions: ALL,
    clusters: ['512', '4k'],
    size: MIB / 2,
    content: 'over backing file',
    run: (driver, random) => {
      for (let n = 0; n < 3; n++) {
        repeat(25, write, write, zero, discard, snapshot, deleteSnapshot)(driver, random);
        makeEmpty(driver, random);
      }
    },
  },
  {
    name: 'empty',
    versions: ['qcow'],
    clusters: ['512'],
    size: MIB / 2,
    content: 'over backing file',
    run: repeat(60, write, write, write, zero, writeCompressed, makeEmpty),
  },
  {
    name: 'empty-subclusters',
    versions: V3,
    clusters: ['16k'],
    size: MIB / 2,
    content: 'over backing file',
    options: ['extended_l2=on'],
    run: repeat(60, write, write, write, zero, writeCompressed, makeEmpty),
  },
  {
    name: 'empty-data-file',
    versions: ['v3'],
    clusters: ['4k'],
    size: MIB / 2,
    content: 'over backing file',
    options: ['data_file=data.raw'],
    run: repeat(60, write, write, write, zero, makeEmpty),
  },
  {
    name: 'subclusters',
    versions: V3,
    clusters: ['16k', '64k'],
    size: MIB,
    content: 'over backing file',
    options: ['extended_l2=on'],
    run: repeat(60, write, write, write, discard, zero),
  },
  {
    name: 'subcluster-snapshots',
    versions: V3,
    clusters: ['16k'],
    size: MIB,
    content: 'filled',
    options: ['extended_l2=on'],
    run: repeat(50, write, write, discard, zero, snapshot, deleteSnapshot, revert),
  },
  {
    name: 'zero',
    versions: ALL,
    clusters: ['512', '4k', '64k'],
    size: MIB,
    content: 'filled',
    run: repeat(80, write, zero),
  },
  {
    name: 'zero-marks',
    versions: ALL,
    clusters: ['512', '64k'],
    size: MIB,
    content: 'compressed',
    run: repeat(80, write, write, mark, letGo),
  },
  {
    name: 'zero-marks-backing',
    versions: V3,
    clusters: ['4k'],
    size: MIB,
    content: 'over backing file',
    run: repeat(60, write, write, mark, letGo, snapshot, deleteSnapshot, revert),
  },
  {
    name: 'zero-marks-subclusters',
    versions: ['v3'],
    clusters: ['16k'],
    size: MIB,
    content: 'compressed',
    options: ['extended_l2=on'],
    run: repeat(60, write, write, mark, letGo, snapshot, deleteSnapshot),
  },
  {
    name: 'zero-marks-data-file',
    versions: ['v3'],
    clusters: ['4k'],
    size: MIB,
    content: 'over backing file',
    options: ['data_file=data.raw'],
    run: repeat(60, write, write, mark, letGo),
  },
  {
    name: 'erase-parts',
    versions: ['v2', 'v3'],
    clusters: ['4k', '64k'],
    size: MIB,
    content: 'filled',
    run: repeat(60, write, erasePart, erasePart),
  },
  {
    name: 'preallocate',
    versions: ALL,
    clusters: ['512', '4k', '64k'],
    size: MIB,
    content: 'empty',
    run: repeat(60, write, preallocate),
  },
  {
    name: 'versions',
    versions: ['v3', 'lazy'],
    clusters: ['512', '4k', '64k'],
    size: MIB / 2,
    content: 'filled',
    run: repeat(50, zero, zero, write, snapshot, deleteSnapshot, discard, changeVersion),
  },
  {
    name: 'versions-backing',
    versions: ALL,
    clusters: ['512', '4k'],
    size: MIB / 2,
    content: 'over backing file',
    run: repeat(50, zero, discard, write, snapshot, deleteSnapshot, changeVersion),
  },
  {
    name: 'refcount-widths',
    versions: ALL,
    clusters: ['512', '4k'],
    size: MIB / 2,
    content: 'filled',
    run: repeat(40, write, write, snapshot, deleteSnapshot, discard, changeWidth),
  },
  {
    name: 'bitmaps',
    versions: V3,
    clusters: ['4k'],
    size: MIB,
    content: 'over backing file',
    bitmaps: true,
    // No snapshots: QEMU 7.2 loses them where it repairs a dirty image that has bitmaps.
    run: (driver, random) => {
      const steps = [write, write, write, discard, zero, mark, grow];
      repeat(50, ...steps, closeImage, closeImage)(driver, random);
      repeat(8, changeWidth, write)(driver, random);
      driver.close();
    },
  },
  {
    name: 'bitmap-edits',
    versions: ['v3'],
    clusters: ['512'],
    size: MIB,
    content: 'filled',
    bitmaps: true,
    run: repeat(40, write, write, discard, editBitmaps),
  },
  {
    name: 'compact',
    versions: ['v2', 'v3'],
    clusters: ['512', '4k'],
    size: MIB,
    content: 'filled',
    run: fragmented(write, discard, snapshot, deleteSnapshot, saveVm),
  },
  {
    name: 'compact-compressed',
    versions: ['v2', 'v3'],
    clusters: ['4k'],
    size: MIB,
    content: 'compressed',
    run: fragmented(writeCompressed, writeCompressed, snapshot, deleteSnapshot),
  },
  {
    name: 'compact-subclusters',
    versions: ['v3'],
    clusters: ['16k'],
    size: MIB,
    content: 'compressed',
    options: ['compression_type=zstd', 'extended_l2=on'],
    run: fragmented(write, writeCompressed, snapshot, deleteSnapshot),
  },
  {
    name: 'compact-bitmaps',
    versions: ['v3'],
    clusters: ['512'],
    size: MIB,
    content: 'filled',
    bitmaps: true,
    run: fragmented(editBitmaps),
  },
  {
    name: 'compact-luks',
    versions: ['v3'],
    clusters: ['4k'],
    size: MIB / 2,
    content: 'filled',
    options: [luksOptions('encrypt.iter-time=0,encrypt.cipher-alg=aes-128')],
    run: fragmented(write, snapshot, deleteSnapshot),
  },
  {
    name: 'compact-data-file',
    versions: ['v3'],
    clusters: ['512'],
    size: 4 * MIB,
    content: 'over backing file',
    options: ['data_file=data.raw'],
    run: fragmented(write, resize(8 * MIB)),
  },
  {
    name: 'mixed',
    versions: ALL,
    clusters: ['512', '4k'],
    size: MIB / 2,
    content: 'compressed',
    run: repeat(
      80,
      ...[write, write, write, discard, zero, preallocate],
      ...[snapshot, deleteSnapshot, rename, revert, resize(2 * MIB)],
    ),
  },
];

export const WORKLOADS: readonly Workload[] = FAMILIES.flatMap((family) =>
  family.versions.flatMap((version) =>
    family.clusters.map((cluster) => ({
      name: `${family.name}/${version}/${cluster}`,
      image: {
        format: version === 'qed' || version === 'qcow' ? version : undefined,
        size: family.size,
        options: [
          ...VERSIONS[version],
          ...(version === 'qcow' ? [] : [`cluster_size=${cluster}`]),
          ...(family.options ?? []),
        ],
        content: family.content,
        ...(family.bitmaps === true && { bitmaps: true }),
      },
      run: family.run,
    })),
  ),
);

/** Those whose names contain one of the words; all where there is none. */
export function selectWorkloads(words: readonly string[]): Workload[] {
  return WORKLOADS.filter(({ name }) => words.length === 0 || words.some((w) => name.includes(w)));
}
