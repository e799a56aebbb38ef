/** `check` and its repairs on images with random damage: as qemu-img finds it, and without loss. */
import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { CLUSTER, Damage, sampleSpec } from '../helpers/check-damage.js';
import { lostClusters, ourCheck, readableClusters } from '../helpers/check-run.js';
import { buildImage } from '../helpers/image-builder.js';
import type { ImageSpec } from '../helpers/image-spec.js';
import { tryQemuImg } from '../helpers/qemu.js';
import { printSeed, Random, SEED } from '../helpers/random.js';
import { useTempFolder } from '../helpers/temp.js';

const ROUNDS = 40;
const ALL = (1n << 64n) - 1n;

const specs: readonly Partial<ImageSpec>[] = [
  {},
  { version: 2 },
  { snapshots: [] },
  { refcountOrder: 3 },
  { snapshots: [], bitmaps: [{ name: 'b' }] },
];

/** Offsets of entries: of L1, L2 and refcount tables, of counts, of the snapshot table. */
function entryPlaces({ bytes, places, l2 }: Damage): number[] {
  const run = (at: number, count: number) => Array.from({ length: count }, (_, n) => at + n * 8);
  const all = [
    ...run(places.l1Table, 2),
    ...run(l2, 12),
    ...run(places.refcountTable, 4),
    ...run(places.refcountBlocks[0]!, 6),
    ...(places.snapshotTable === 0 ? [] : run(places.snapshotTable, 16)),
  ];
  return all.filter((at) => at + 8 <= bytes.length);
}

function mutate(image: Damage, random: Random): void {
  const places = entryPlaces(image);
  const at = random.pick(places);
  const flags = [0n, 1n << 63n, 1n << 62n, 3n << 62n];
  const mutations: (() => bigint)[] = [
    () => image.get(at) ^ (1n << BigInt(random.below(64))),
    () => 0n,
    () => image.get(random.pick(places)),
    () => random.pick(flags) | BigInt(random.below(image.bytes.length / 512 + 16) * 512),
    () => random.pick(flags) | BigInt(random.below(image.bytes.length / CLUSTER + 2) * CLUSTER),
    () => image.get(at) ^ random.pick([1n << 63n, 1n << 62n, 1n, 512n]),
  ];
  image.put(at, random.pick(mutations)() & ALL);
}

/** QEMU takes the header for an L2 table where an L1 entry has flags and no offset. */
function hasFlagsAlone(image: Damage): boolean {
  return [0, 8].some((at) => {
    const entry = image.get(image.places.l1Table + at);
    return entry !== 0n && (entry & 0x00ff_ffff_ffff_fe00n) === 0n;
  });
}

describe('check() of random damage', () => {
  const temp = useTempFolder();
  const random = new Random(SEED);
  printSeed();

  for (let round = 0; round < ROUNDS; round++) {
    it(`finds what qemu-img finds, and loses nothing in a repair (${round})`, () => {
      const { bytes: whole, places } = buildImage(sampleSpec(random.pick(specs)));
      const image = new Damage(Buffer.from(whole), places);
      for (let left = random.pick([1, 1, 2, 4]); left > 0; left--) mutate(image, random);
      const path = temp.write('image', image.bytes);
      const theirs = tryQemuImg('check', path);
      // Offsets from 2^63 on are negative ones for it: a snapshot with one ends its check.
      const isBeyond = /Cannot allocate memory|I\/O error in check_/.test(theirs.stderr);
      if (!hasFlagsAlone(image) && !isBeyond) {
        const { status, stdout, stderr } = theirs;
        expect(ourCheck(path)).to.deep.equal({ status, stdout, stderr });
      }
      const before = readableClusters(path, CLUSTER);
      const truth = readableClusters(temp.write('whole', whole), CLUSTER);
      const repaired = ourCheck(path, 'all');
      expect(lostClusters(before, truth, readableClusters(path, CLUSTER))).to.deep.equal([]);
      const after = ourCheck(path);
      expect(after.status, repaired.stderr).to.equal(repaired.status);
      if (!isBeyond) expect(tryQemuImg('check', path).status).to.equal(after.status);
      const bytes = readFileSync(path);
      ourCheck(path, 'all');
      expect(readFileSync(path).equals(bytes), 'a second repair changes nothing').to.equal(true);
    });
  }
});
