/** Images that are damaged on purpose, each in one way that a check finds. */
import { SNAPSHOT_HEADER } from '#src/image/qcow2/layout.js';
import { buildImage } from './image-builder.js';
import type { Clusters, ClusterSpec, ImageSpec, Places } from './image-spec.js';
import { pattern } from './random.js';

export const CLUSTER = 4096;
const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const FAR = 1n << 24n;

/** What of an image is changed, and how. */
export class Damage {
  readonly bytes: Buffer;
  readonly places: Places;

  constructor(bytes: Buffer, places: Places) {
    this.bytes = bytes;
    this.places = places;
  }

  get l2(): number {
    return this.places.l2Tables.get(0)!;
  }

  get(at: number): bigint {
    return this.bytes.readBigUInt64BE(at);
  }

  put(at: number, value: bigint): void {
    this.bytes.writeBigUInt64BE(value, at);
  }

  /** The refcount of a cluster, of 16 bits. */
  count(cluster: number, count: number): void {
    this.bytes.writeUInt16BE(count, this.places.refcountBlocks[0]! + cluster * 2);
  }

  clusterAt(guest: number): number {
    return this.places.clusters.get(guest)! / CLUSTER;
  }

  l2Entry(index: number, value: bigint, size = 8): void {
    this.put(this.l2 + index * size, value);
  }

  snapshot(index: number, field: keyof typeof SNAPSHOT_HEADER.fields, value: number): void {
    const at = this.places.snapshotEntries[index]! + SNAPSHOT_HEADER.offsets[field];
    const { size } = SNAPSHOT_HEADER.fields[field];
    if (size === 8) this.put(at, BigInt(value));
    else this.bytes.writeUIntBE(value, at, size);
  }
}

/**
 * How the repair by `-r all` compares with QEMU's: `same` in all it prints and does; `moves` other clusters
 * are used for new tables; `better` where QEMU 7.2 fails, or leaves the image as it is; `careful` where it
 * frees clusters that are still read.
 */
export type Comparison = 'same' | 'moves' | 'better' | 'careful';

export interface DamageCase {
  readonly name: string;
  readonly damage: (image: Damage) => void;
  readonly spec?: Partial<ImageSpec>;
  readonly all?: Comparison;
  /** Where QEMU 7.2 is wrong about the damage itself: what we find instead, as an exit status. */
  readonly checked?: number;
  /** Bytes that are left of the file. */
  readonly cut?: number;
}

function data(seed: number): ClusterSpec {
  return { kind: 'data', bytes: pattern(seed, CLUSTER) };
}

const shared: Clusters = new Map([
  [0, data(20)],
  [1, data(21)],
]);

export function sampleSpec(spec: Partial<ImageSpec> = {}): ImageSpec {
  const packed: ClusterSpec = { kind: 'compressed', bytes: pattern(9, 512) };
  const clusters = new Map<number, ClusterSpec>([
    ...shared,
    ...[2, 3, 4, 5].map((n) => [n, data(n)] as const),
    [6, { kind: 'zero', preallocated: true }],
    [7, { kind: 'zero' }],
    [8, packed],
    [700, data(7)],
  ]);
  const snapshots = ['a', 'b'].map((name, n) => ({ id: `${n + 1}`, name, clusters: shared }));
  return { size: 4 << 20, clusterBits: 12, clusters, snapshots, ...spec };
}

const single = { snapshots: [] };
const small: Clusters = new Map([[0, { kind: 'data', bytes: pattern(1, 512) }]]);
const subclusters: Partial<ImageSpec> = {
  clusterBits: 14,
  extendedL2: true,
  snapshots: [],
  clusters: new Map([[0, { kind: 'data', bytes: pattern(1, 1 << 14) }]]),
};

const references: DamageCase[] = [
  { name: 'nothing', damage: () => {} },
  { name: 'a leak', damage: (i) => i.count(i.clusterAt(2), 3) },
  { name: 'a leak without references', spec: single, damage: (i) => i.l2Entry(3, 0n) },
  { name: 'a count too low', damage: (i) => i.count(i.clusterAt(0), 1) },
  {
    name: 'counts too low and too high',
    damage: (i) => {
      i.count(i.clusterAt(0), 2);
      i.count(i.clusterAt(3), 9);
    },
  },
  { name: 'a count of 0', all: 'moves', damage: (i) => i.count(i.clusterAt(3), 0) },
  {
    name: 'COPIED missing',
    damage: (i) => i.l2Entry(2, i.get(i.l2 + 16) & ~COPIED),
  },
  { name: 'COPIED where it is shared', damage: (i) => i.l2Entry(0, i.get(i.l2) | COPIED) },
  {
    name: 'COPIED missing in L1',
    damage: (i) => i.put(i.places.l1Table, i.get(i.places.l1Table) & ~COPIED),
  },
  { name: 'one cluster twice', damage: (i) => i.l2Entry(40, i.get(i.l2 + 16)) },
  {
    name: 'one L2 table twice',
    damage: (i) => i.put(i.places.l1Table + 8, i.get(i.places.l1Table)),
  },
  {
    name: 'data over the L1 table',
    damage: (i) => i.l2Entry(40, BigInt(i.places.l1Table) | COPIED),
  },
  { name: 'data over the header', damage: (i) => i.l2Entry(41, COMPRESSED) },
  {
    name: 'data over a refcount block',
    all: 'moves',
    damage: (i) => i.l2Entry(40, BigInt(i.places.refcountBlocks[0]!)),
  },
  {
    name: 'more references than a count can say',
    spec: { snapshots: [], refcountOrder: 0 },
    damage: (i) => i.l2Entry(40, i.get(i.l2 + 16)),
  },
];

const entries: DamageCase[] = [
  {
    name: 'reserved bits of L1',
    damage: (i) => i.put(i.places.l1Table, i.get(i.places.l1Table) | (1n << 60n) | 1n),
  },
  {
    name: 'an L2 table past the end',
    damage: (i) => i.put(i.places.l1Table + 8, COPIED | FAR),
  },
  // QEMU takes the header for an L2 table here.
  {
    name: 'COPIED in L1 beside nothing',
    spec: { size: 8 << 20 },
    checked: 2,
    all: 'better',
    damage: (i) => i.put(i.places.l1Table + 24, COPIED),
  },
  { name: 'reserved bits of L2', damage: (i) => i.l2Entry(2, i.get(i.l2 + 16) | (1n << 60n) | 2n) },
  { name: 'data past the end', damage: (i) => i.l2Entry(40, COPIED | FAR) },
  { name: 'data at the very end', damage: (i) => i.l2Entry(40, COPIED | BigInt(i.bytes.length)) },
  { name: 'COPIED beside nothing', damage: (i) => i.l2Entry(40, COPIED) },
  { name: 'unaligned data', damage: (i) => i.l2Entry(2, i.get(i.l2 + 16) | 512n) },
  { name: 'unaligned zeroes', damage: (i) => i.l2Entry(6, i.get(i.l2 + 48) | 512n) },
  {
    name: 'a compressed cluster with COPIED',
    damage: (i) => i.l2Entry(8, i.get(i.l2 + 64) | COPIED),
  },
  { name: 'a compressed cluster past the end', damage: (i) => i.l2Entry(8, COMPRESSED | FAR) },
  {
    name: 'a compressed cluster of many sectors',
    all: 'careful',
    damage: (i) => i.l2Entry(8, i.get(i.l2 + 64) | (15n << 58n)),
  },
  {
    name: 'compressed clusters beyond what numbers say exactly',
    spec: { clusterBits: 9, size: 1 << 14, snapshots: [], clusters: small },
    damage: (i) => i.l2Entry(8, COMPRESSED | 0x1234_5678_9abc_def1n),
  },
  { name: 'a zero cluster in version 2', spec: { version: 2 }, damage: (i) => i.l2Entry(40, 1n) },
  {
    name: 'subclusters both allocated and zero',
    spec: subclusters,
    damage: (i) => i.put(i.l2 + 8, 0x3_ffff_ffffn),
  },
  {
    name: 'subclusters of nothing',
    spec: subclusters,
    damage: (i) => i.put(i.l2 + 9 * 16 + 8, 5n),
  },
  {
    name: 'subclusters of a compressed cluster',
    spec: subclusters,
    damage: (i) => {
      i.put(i.l2 + 9 * 16, COMPRESSED | 0x4000n);
      i.put(i.l2 + 9 * 16 + 8, 1n);
    },
  },
  {
    name: 'unaligned subclusters of zeroes',
    spec: subclusters,
    damage: (i) => {
      i.put(i.l2, i.get(i.l2) | 512n);
      i.put(i.l2 + 8, 0xffff_ffffn << 32n);
    },
  },
  { name: 'a file that is cut off', damage: () => {}, cut: 0x12000 },
  { name: 'a file that is cut off within a cluster', damage: () => {}, cut: 0x12100 },
];

const tables: DamageCase[] = [
  {
    name: 'a refcount block outside',
    all: 'moves',
    damage: (i) => i.put(i.places.refcountTable, FAR),
  },
  {
    name: 'a refcount block that is needed by nobody outside',
    all: 'moves',
    damage: (i) => i.put(i.places.refcountTable + 8, FAR),
  },
  // QEMU gives up: it cannot read the block.
  {
    name: 'an unaligned refcount block',
    all: 'better',
    damage: (i) => i.put(i.places.refcountTable, i.get(i.places.refcountTable) | 512n),
  },
  // QEMU writes new blocks over the old one, and its own guard stops it.
  {
    name: 'reserved bits of the refcount table',
    all: 'better',
    damage: (i) => i.put(i.places.refcountTable, i.get(i.places.refcountTable) | 3n),
  },
  {
    name: 'one refcount block twice',
    all: 'moves',
    damage: (i) => i.put(i.places.refcountTable + 8, i.get(i.places.refcountTable)),
  },
  {
    name: 'an L2 table as a refcount block',
    all: 'moves',
    damage: (i) => i.put(i.places.refcountTable + 8, BigInt(i.l2)),
  },
  {
    name: 'an empty refcount table',
    all: 'moves',
    damage: (i) => i.put(i.places.refcountTable, 0n),
  },
  { name: 'a refcount table past the end', all: 'moves', damage: (i) => i.put(48, FAR * 64n) },
  { name: 'no refcount table', all: 'moves', damage: (i) => i.bytes.writeUInt32BE(0, 56) },
  { name: 'an unaligned refcount table', damage: (i) => i.put(48, i.get(48) + 512n) },
  { name: 'a refcount table too large', damage: (i) => i.bytes.writeUInt32BE(10_000, 56) },
  { name: 'an L1 table past the end', damage: (i) => i.put(40, FAR * 64n) },
  { name: 'an unaligned L1 table', damage: (i) => i.put(40, i.get(40) + 8n) },
  { name: 'an L1 table over the header', damage: (i) => i.put(40, 0n) },
  { name: 'the dirty bit', damage: (i) => i.put(72, 1n) },
  { name: 'the corrupt bit', damage: (i) => i.put(72, 2n) },
  {
    name: 'the dirty bit and a leak',
    damage: (i) => {
      i.put(72, 1n);
      i.count(i.clusterAt(2), 3);
    },
  },
];

const bitmapped = { snapshots: [], bitmaps: [{ name: 'b' }] };

function bitmapTable(image: Damage): number {
  return Number(image.get(image.places.bitmapDirectory));
}

/** Others cannot be held against QEMU: it writes bitmaps anew when it repairs. */
const bitmaps: DamageCase[] = [
  {
    name: 'reserved bits in the table of a bitmap',
    spec: bitmapped,
    damage: (i) => i.put(bitmapTable(i), 2n),
  },
  {
    name: 'an unaligned cluster of a bitmap',
    spec: bitmapped,
    damage: (i) => i.put(bitmapTable(i), 0x5200n),
  },
];

const snapshots: DamageCase[] = [
  {
    name: 'an unaligned L1 table of a snapshot',
    damage: (i) => i.snapshot(0, 'l1TableOffset', i.places.snapshotL1Tables[0]! + 512),
  },
  {
    name: 'an L1 table of a snapshot past the end',
    damage: (i) => i.snapshot(0, 'l1TableOffset', 1 << 30),
  },
  {
    name: 'an L1 table of a snapshot too large',
    all: 'moves',
    damage: (i) => i.snapshot(0, 'l1Size', 0x50_0000),
  },
  {
    name: 'too much extra data',
    all: 'moves',
    damage: (i) => i.snapshot(0, 'extraDataSize', 2000),
  },
  {
    name: 'extra data beyond all limits',
    damage: (i) => i.snapshot(0, 'extraDataSize', 0x7fff_ffff),
  },
  {
    name: 'too little extra data',
    all: 'moves',
    damage: (i) => i.snapshot(1, 'extraDataSize', 0),
  },
  {
    name: 'too little extra data in version 2',
    spec: { version: 2 },
    damage: (i) => i.snapshot(1, 'extraDataSize', 0),
  },
  {
    name: 'a snapshot more than there is',
    all: 'moves',
    damage: (i) => i.bytes.writeUInt32BE(3, 60),
  },
  { name: 'an unaligned snapshot table', damage: (i) => i.put(64, i.get(64) + 8n) },
  { name: 'a snapshot table past the end', all: 'moves', damage: (i) => i.put(64, 1n << 30n) },
];

export const DAMAGES: readonly DamageCase[] = [
  ...references,
  ...entries,
  ...tables,
  ...bitmaps,
  ...snapshots,
];

/** The image, and the same undamaged. */
export function damaged({ spec, damage, cut }: DamageCase): { whole: Buffer; bytes: Buffer } {
  const { bytes: whole, places } = buildImage(sampleSpec(spec));
  const image = new Damage(Buffer.from(whole), places);
  damage(image);
  return { whole, bytes: cut === undefined ? image.bytes : image.bytes.subarray(0, cut) };
}
