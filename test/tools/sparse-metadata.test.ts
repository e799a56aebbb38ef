/** Disks and files far larger than what is in them: time and memory go by what there is. */
import { truncateSync } from 'node:fs';
import { expect } from 'chai';
import { KeyRing } from '#src/image/crypto/key-ring.js';
import { formatOptionTable, parseOptions } from '#src/image/create-options.js';
import { IoBuffer } from '#src/sys/io-buffer.js';
import { check } from '#src/tools/check.js';
import { commitDisk } from '#src/tools/commit.js';
import { measureSteps } from '#src/tools/measure.js';
import { closeAfter, openDisk } from '#src/tools/open-disk.js';
import { writeImage } from '../helpers/image-builder.js';
import { runInProcess } from '../helpers/in-process.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
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

  it('is measured in few steps', async () => {
    const path = temp.at('huge.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=2M', path, '1P');
    const disk = await openDisk(path);
    const values = parseOptions([], formatOptionTable('qcow2'));
    const request = { format: 'qcow2', values, source: disk, keys: new KeyRing() };
    await closeAfter(disk, () => {
      let count = 0;
      for (const _ of measureSteps(request)) count++;
      expect(count).to.be.below(5000);
    });
  });

  it('is written to without a look at what is a hole of its table of tables', async () => {
    const path = temp.at('huge.qcow');
    await runInProcess(['create', '-q', '-f', 'qcow', path, '32T'], temp.path);
    const disk = await openDisk({ path, filename: path, format: 'qcow' }, { writable: true });
    await closeAfter(disk, () => {
      const buffer = new IoBuffer(512);
      buffer.bytes.fill(7);
      disk.writer.write(2 ** 44, 512, buffer, 0);
      disk.writer.flush();
      expect(disk.image.totals().cacheMisses).to.be.below(1000);
    });
    qemuIo(path, `read -P 7 ${2 ** 44} 512`);
  });
});
