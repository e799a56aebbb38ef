/** Disks and files far larger than what is in them: time and memory go by what there is. */
import { truncateSync } from 'node:fs';
import { expect } from 'chai';
import { check } from '#src/tools/check.js';
import { commitDisk } from '#src/tools/commit.js';
import { closeAfter, openDisk } from '#src/tools/open-disk.js';
import { writeImage } from '../helpers/image-builder.js';
import { qemuImg } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

const CLUSTER_BITS = 9;
const ENTRIES = 30_000;
const FILE_SIZE = 2 ** 42;
const MOST_MEMORY_KIB = 600 * 1024;
const COPIED = 1n << 63n;

describe('what is huge and nearly empty', () => {
  const temp = useTempFolder();

  it('is checked in little memory: a file of holes, with clusters here and there', () => {
    const clusterSize = 2 ** CLUSTER_BITS;
    const step = Math.floor(FILE_SIZE / (ENTRIES + 1) / clusterSize) * clusterSize;
    const path = temp.at('scattered.qcow2');
    writeImage(path, {
      size: ENTRIES * clusterSize,
      clusterBits: CLUSTER_BITS,
      clusters: new Map(
        Array.from({ length: ENTRIES }, (_, index) => [
          index,
          { kind: 'entry', entry: COPIED | BigInt((index + 1) * step) },
        ]),
      ),
    });
    truncateSync(path, FILE_SIZE);
    const before = process.resourceUsage().maxRSS;
    const { corruptions, allocatedClusters } = check(path);
    expect(allocatedClusters).to.equal(ENTRIES);
    // Each has no refcount, and a flag that says that it has one.
    expect(corruptions).to.equal(2 * ENTRIES);
    expect(process.resourceUsage().maxRSS - before).to.be.below(MOST_MEMORY_KIB);
  });

  it('is committed in few steps', async () => {
    const top = temp.at('top.qcow2');
    const huge = ['-f', 'qcow2', '-o', 'cluster_size=2M'];
    qemuImg('create', '-q', ...huge, temp.at('base.qcow2'), '16T');
    qemuImg('create', '-q', ...huge, '-b', 'base.qcow2', '-F', 'qcow2', top);
    const disk = await openDisk(top, { writable: true });
    let steps = 0;
    const advance = async () => {
      steps++;
    };
    await closeAfter(disk, () => {
      const spec = { path: top, filename: top };
      return commitDisk(disk, { spec, keep: false, bytesPerSecond: 0, write: {} }, { advance });
    });
    expect(steps).to.be.below(1000);
  });
});
