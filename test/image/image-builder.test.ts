import { expect } from 'chai';
import type { ClusterSpec, ImageSpec } from '../helpers/image-spec.js';
import { writeImage } from '../helpers/image-builder.js';
import { qemuImg, qemuRead } from '../helpers/qemu.js';
import { pattern } from '../helpers/random.js';
import { useTempFolder } from '../helpers/temp.js';

/** A disk of 40 clusters with each kind of them. */
function everyKind(clusterBits: number): { size: number; clusters: Map<number, ClusterSpec> } {
  const clusterSize = 2 ** clusterBits;
  const data = (seed: number) => pattern(seed, clusterSize);
  const clusters = new Map<number, ClusterSpec>([
    [0, { kind: 'data', bytes: data(1) }],
    [1, { kind: 'data', bytes: data(2) }],
    [3, { kind: 'zero' }],
    [4, { kind: 'zero', preallocated: true }],
    [39, { kind: 'data', bytes: data(3) }],
  ]);
  for (let n = 10; n < 20; n++) clusters.set(n, { kind: 'compressed', bytes: data(n) });
  return { size: 40 * clusterSize, clusters };
}

describe('buildImage()', () => {
  const temp = useTempFolder();
  const shared: ClusterSpec = { kind: 'data', bytes: pattern(77, 512) };
  const cases: [what: string, spec: ImageSpec][] = [
    ['512-byte clusters', { clusterBits: 9, ...everyKind(9) }],
    ['64 KiB clusters', everyKind(16)],
    ['zstd', { clusterBits: 12, compression: 'zstd', ...everyKind(12) }],
    ['extended L2', { clusterBits: 14, extendedL2: true, ...everyKind(14) }],
    ...[0, 1, 2, 3, 5, 6].map((order): [string, ImageSpec] => [
      `${2 ** order}-bit refcounts`,
      { clusterBits: 9, refcountOrder: order, ...everyKind(9) },
    ]),
    [
      'version 2',
      {
        version: 2,
        size: 1 << 20,
        clusters: new Map([[5, { kind: 'compressed', bytes: pattern(1, 65536) }]]),
      },
    ],
    [
      'a longer header, features by name, unknown extensions',
      {
        size: 1 << 20,
        headerTail: Buffer.alloc(64, 1),
        featureNames: [{ type: 1, bit: 40, name: 'nothing' }],
        extensions: [{ type: 0x12345678, data: Buffer.from('unknown') }],
      },
    ],
    [
      'snapshots that share clusters',
      {
        size: 1 << 20,
        clusters: new Map([[0, shared]]),
        snapshots: [
          { id: '1', name: 'a', clusters: new Map([[3, shared]]) },
          { id: '2', name: 'b', extraDataSize: 40, vmStateSize: 70000, vmState: new Map() },
        ],
      },
    ],
    [
      'bitmaps',
      { size: 1 << 20, bitmaps: [{ name: 'first' }, { name: 'second', granularityBits: 12 }] },
    ],
  ];
  for (const [what, spec] of cases) {
    it(`makes images that qemu-img finds clean: ${what}`, () => {
      const path = temp.at('image.qcow2');
      writeImage(path, spec);
      qemuImg('check', path);
    });
  }

  it('makes data files that QEMU reads', () => {
    const path = temp.at('image.qcow2');
    const clusters = new Map<number, ClusterSpec>([
      [0, { kind: 'data', bytes: pattern(1, 65536) }],
      [2, { kind: 'data', bytes: pattern(2, 65536) }],
    ]);
    writeImage(path, { size: 1 << 20, dataFile: { name: temp.at('data') }, clusters });
  });

  it('puts the bytes where QEMU finds them', () => {
    const path = temp.at('image.qcow2');
    const { size, clusters } = everyKind(12);
    writeImage(path, { clusterBits: 12, size, clusters, trimmed: true });
    const expected = Buffer.alloc(size);
    for (const [index, cluster] of clusters) {
      if ('bytes' in cluster) expected.set(cluster.bytes, index * 4096);
    }
    expect(qemuRead(path).equals(expected)).to.equal(true);
  });
});
