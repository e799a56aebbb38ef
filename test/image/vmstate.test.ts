import { expect } from 'chai';
import type { ClusterSpec } from '../helpers/image-spec.js';
import { writeImage } from '../helpers/image-builder.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { pattern } from '../helpers/random.js';
import { dataRuns, readDisk, withImage } from '../helpers/read.js';
import { useTempFolder } from '../helpers/temp.js';

const MIB = 1 << 20;
const GIB = 2 ** 30;

describe('vmState()', () => {
  const temp = useTempFolder();

  for (const [what, options] of [
    ['64 KiB clusters', {}],
    ['512-byte clusters', { clusterBits: 9 }],
    ['extended L2', { clusterBits: 14, extendedL2: true }],
  ] as const) {
    it(`reads what QEMU reads with ${what}`, () => {
      const clusterSize = 2 ** ('clusterBits' in options ? options.clusterBits : 16);
      const vmState = new Map<number, ClusterSpec>([
        [0, { kind: 'data', bytes: Buffer.alloc(clusterSize, 0x11) }],
        [1, { kind: 'compressed', bytes: Buffer.alloc(clusterSize, 0x22) }],
        [3, { kind: 'data', bytes: Buffer.alloc(clusterSize, 0x33) }],
      ]);
      const vmStateSize = 3 * clusterSize + 100;
      const path = temp.at('image.qcow2');
      writeImage(path, {
        ...options,
        size: 3 * MIB + 512,
        clusters: new Map([[0, { kind: 'data', bytes: pattern(1, clusterSize) }]]),
        snapshots: [{ id: '1', name: 'vm', vmStateSize, vmState }],
      });
      qemuImg('check', path);
      withImage(path, ({ image }) => {
        const state = readDisk(image.vmState(1));
        const expected = [0x11, 0x22, 0, 0x33].map((fill) => Buffer.alloc(clusterSize, fill));
        expect(state.equals(Buffer.concat(expected).subarray(0, vmStateSize))).to.equal(true);
        expect(readDisk(image.snapshotDisk(1)).every((byte) => byte === 0)).to.equal(true);
        expect(image.disk.size).to.equal(3 * MIB + 512);
      });
      qemuImg('snapshot', '-a', 'vm', path);
      const reads = [0x11, 0x22, 0, 0x33].map(
        (fill, n) => `read -b -P ${fill} ${n * clusterSize} 512`,
      );
      expect(qemuIo(path, ...reads)).not.to.match(/verification failed/);
    });
  }

  it('reads states of 64-bit sizes, to their last byte', () => {
    const path = temp.at('image.qcow2');
    const vmStateSize = 5 * GIB + 7;
    const last = Math.floor(vmStateSize / 65536);
    const vmState = new Map<number, ClusterSpec>([
      [(4 * GIB) / 65536, { kind: 'data', bytes: pattern(1, 65536) }],
      [last, { kind: 'data', bytes: pattern(2, 65536) }],
    ]);
    writeImage(path, { size: MIB, snapshots: [{ id: '1', name: 'vm', vmStateSize, vmState }] });
    withImage(path, ({ image }) => {
      const state = image.vmState(1);
      expect(state.size).to.equal(vmStateSize);
      expect(readDisk(state, 4 * GIB, 65536).equals(pattern(1, 65536))).to.equal(true);
      expect(readDisk(state, 5 * GIB).equals(pattern(2, 65536).subarray(0, 7))).to.equal(true);
      expect(readDisk(state, GIB, MIB).every((byte) => byte === 0)).to.equal(true);
      expect(dataRuns(state)).to.deep.equal([
        { start: 4 * GIB, end: 4 * GIB + 65536 },
        { start: last * 65536, end: vmStateSize },
      ]);
    });
  });

  it('lies behind the disk as it was at that time, not as it is now', () => {
    const path = temp.at('image.qcow2');
    const vmState = new Map<number, ClusterSpec>([[0, { kind: 'data', bytes: pattern(3, 65536) }]]);
    const snapshot = { id: '1', name: 'vm', vmStateSize: 65536, vmState, diskSize: 2 * GIB };
    writeImage(path, { size: MIB, snapshots: [snapshot] });
    withImage(path, ({ image }) => {
      expect(image.snapshotDisk(1).size).to.equal(2 * GIB);
      expect(readDisk(image.vmState(1)).equals(pattern(3, 65536))).to.equal(true);
    });
  });

  it('never shows what lies below the image', () => {
    temp.write('base', pattern(1, MIB));
    const path = temp.at('image.qcow2');
    const snapshots = [{ id: '1', name: 'vm', vmStateSize: 65536 }];
    writeImage(path, { size: MIB, backing: { name: 'base', format: 'raw' }, snapshots });
    withImage(path, ({ image }) => {
      expect(readDisk(image.vmState(1)).every((byte) => byte === 0)).to.equal(true);
    });
  });
});
