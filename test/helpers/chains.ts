/**
 * Random chains of images for property tests, and a naive model of what their disks read: a flat
 * buffer for each layer, made without any of the format's structures.
 */
import { writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { writeImage } from './image-builder.js';
import type { ClusterSpec, ImageSpec } from './image-spec.js';
import { pattern } from './random.js';

/** What a guest cluster holds; the bytes follow from `seed`. */
interface ClusterPlan {
  /** Where in the disk, as a part of 1. */
  readonly place: number;
  readonly kind: 'data' | 'zero' | 'preallocated' | 'compressed' | 'subclusters' | 'hostless';
  readonly seed: number;
  readonly allocated: number;
  readonly zero: number;
}

export interface LayerPlan {
  readonly format: 'qcow2' | 'raw';
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly extendedL2: boolean;
  readonly compression: 'zlib' | 'zstd';
  readonly refcountOrder: number;
  readonly trimmed: boolean;
  readonly dataFile: boolean;
  /** In bytes; partial sectors in raw images only. */
  readonly size: number;
  readonly clusters: readonly ClusterPlan[];
}

const MAX_SIZE = 300_000;

const clusterPlan: fc.Arbitrary<ClusterPlan> = fc.record({
  place: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
  kind: fc.constantFrom('data', 'zero', 'preallocated', 'compressed', 'subclusters', 'hostless'),
  seed: fc.integer({ min: 1, max: 0x7fff_ffff }),
  allocated: fc.oneof(fc.integer(), fc.constantFrom(0, -1, 0xffff, 1 << 31)),
  zero: fc.oneof(fc.integer(), fc.constantFrom(0, -1, 0xf0f0_f0f0)),
});

const layerPlan: fc.Arbitrary<LayerPlan> = fc
  .record({
    format: fc.constantFrom('qcow2' as const, 'qcow2' as const, 'qcow2' as const, 'raw' as const),
    version: fc.constantFrom(2 as const, 3 as const, 3 as const),
    clusterBits: fc.constantFrom(9, 10, 12, 14, 16),
    extendedL2: fc.boolean(),
    compression: fc.constantFrom('zlib' as const, 'zstd' as const),
    refcountOrder: fc.integer({ min: 0, max: 6 }),
    trimmed: fc.boolean(),
    dataFile: fc.boolean(),
    size: fc.integer({ min: 0, max: MAX_SIZE }),
    clusters: fc.array(clusterPlan, { maxLength: 30 }),
  })
  .map(normalize);

/** Of 1 to 4 layers, the top first: raw ones are at the bottom only. */
export const chainPlan: fc.Arbitrary<readonly LayerPlan[]> = fc
  .array(layerPlan, { minLength: 1, maxLength: 4 })
  .map((layers) =>
    layers.map((layer, n) => (n === layers.length - 1 ? layer : { ...layer, format: 'qcow2' })),
  );

/** Takes out what the format does not allow together. */
function normalize(plan: LayerPlan): LayerPlan {
  const old = plan.version === 2;
  const extendedL2 = plan.extendedL2 && !old && plan.clusterBits >= 14;
  const dataFile = plan.dataFile && !old;
  const kinds = new Map<ClusterPlan['kind'], ClusterPlan['kind']>();
  if (old) kinds.set('zero', 'data').set('preallocated', 'data');
  if (!extendedL2) kinds.set('subclusters', 'data').set('hostless', old ? 'data' : 'zero');
  if (dataFile) kinds.set('compressed', 'data');
  return {
    ...plan,
    extendedL2,
    dataFile,
    compression: old ? 'zlib' : plan.compression,
    refcountOrder: old ? 4 : plan.refcountOrder,
    clusters: plan.clusters.map((cluster) => ({
      ...cluster,
      kind: kinds.get(cluster.kind) ?? cluster.kind,
      zero: cluster.zero & ~cluster.allocated,
      ...(cluster.kind === 'hostless' ? { allocated: 0, zero: cluster.zero } : {}),
    })),
  };
}

/** The later cluster wins where two have the same place. */
function placesOf(plan: LayerPlan): Map<number, ClusterPlan> {
  const clusters = Math.ceil(sizeOfQcow2(plan) / 2 ** plan.clusterBits);
  return new Map(
    clusters === 0
      ? []
      : plan.clusters.map((cluster) => [Math.floor(cluster.place * clusters), cluster]),
  );
}

/** Whole sectors. */
function sizeOfQcow2(plan: LayerPlan): number {
  return plan.size - (plan.size % 512);
}

function specOf(cluster: ClusterPlan, clusterSize: number): ClusterSpec {
  const bytes = pattern(cluster.seed, clusterSize);
  switch (cluster.kind) {
    case 'data':
    case 'compressed':
      return { kind: cluster.kind, bytes };
    case 'zero':
      return { kind: 'zero' };
    case 'preallocated':
      return { kind: 'zero', preallocated: true };
    case 'subclusters':
    case 'hostless': {
      const { allocated, zero, kind } = cluster;
      return { kind: 'subclusters', bytes, allocated, zero, hostless: kind === 'hostless' };
    }
  }
}

/** Writes the chain's files; `pathOf` names that of a layer. Answers the top's path. */
export function writeChain(chain: readonly LayerPlan[], pathOf: (name: string) => string): string {
  for (const [n, plan] of chain.entries()) {
    const path = pathOf(`layer-${n}`);
    if (plan.format === 'raw') {
      writeFileSync(path, pattern(n + 1, plan.size));
      continue;
    }
    const below = chain[n + 1];
    const spec: ImageSpec = {
      version: plan.version,
      clusterBits: plan.clusterBits,
      extendedL2: plan.extendedL2,
      compression: plan.compression,
      refcountOrder: plan.refcountOrder,
      trimmed: plan.trimmed,
      size: sizeOfQcow2(plan),
      clusters: new Map(
        [...placesOf(plan)].map(([index, cluster]) => [
          index,
          specOf(cluster, 2 ** plan.clusterBits),
        ]),
      ),
      ...(below === undefined ? {} : { backing: { name: `layer-${n + 1}`, format: below.format } }),
      ...(plan.dataFile ? { dataFile: { name: `data-${n}` } } : {}),
    };
    writeImage(path, spec);
  }
  return pathOf('layer-0');
}

/** What the chain's disk reads. */
export function modelOf(chain: readonly LayerPlan[]): Buffer {
  return chain.reduceRight<Buffer>((below, plan, n) => layerModel(plan, n, below), Buffer.alloc(0));
}

function layerModel(plan: LayerPlan, number: number, below: Buffer): Buffer {
  if (plan.format === 'raw') {
    const disk = Buffer.alloc(Math.ceil(plan.size / 512) * 512);
    pattern(number + 1, plan.size).copy(disk);
    return disk;
  }
  const disk = Buffer.alloc(sizeOfQcow2(plan));
  below.copy(disk);
  const clusterSize = 2 ** plan.clusterBits;
  for (const [index, cluster] of placesOf(plan)) {
    const start = index * clusterSize;
    const bytes = pattern(cluster.seed, clusterSize);
    if (cluster.kind === 'zero' || cluster.kind === 'preallocated') bytes.fill(0);
    if (cluster.kind === 'subclusters' || cluster.kind === 'hostless') {
      applySubclusters(bytes, cluster, below, start);
    }
    bytes.copy(disk, start, 0, Math.min(clusterSize, disk.length - start));
  }
  return disk;
}

function applySubclusters(bytes: Buffer, cluster: ClusterPlan, below: Buffer, start: number): void {
  const own = pattern(cluster.seed, bytes.length);
  const size = bytes.length / 32;
  for (let n = 0; n < 32; n++) {
    const part = bytes.subarray(n * size, (n + 1) * size).fill(0);
    if (((cluster.zero >>> n) & 1) === 1) continue;
    const source = ((cluster.allocated >>> n) & 1) === 1 ? own.subarray(n * size) : undefined;
    (source ?? below.subarray(start + n * size)).copy(part, 0, 0, size);
  }
}
