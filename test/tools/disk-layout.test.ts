/** Where a disk's bytes lie, to be drawn: against `qemu-img map`, in runs and in cells. */
import { appendFileSync, truncateSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { runSteps } from '#src/image/steps.js';
import { type DiskLayout, layoutSteps } from '#src/tools/disk-layout.js';
import { openDisk } from '#src/tools/open-disk.js';
import { lacking, skipSuite } from '../helpers/mount.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

const MIB = 1 << 20;

interface MapRun {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  readonly offset?: number;
}

describe('layoutSteps()', () => {
  skipSuite(() => lacking('qemu-img', 'qemu-io'));
  const folder = useTempFolder();

  /** An overlay with subclusters over another image, with a snapshot and all kinds of clusters. */
  function chain(): string {
    const [base, top] = [folder.at('base.qcow2'), folder.at('top.qcow2')];
    qemuImg('create', '-f', 'qcow2', base, '64M');
    qemuIo(base, 'write -P 1 0 8M', 'write -P 2 30M 3M');
    const options = ['-o', 'extended_l2=on,cluster_size=128k'];
    qemuImg('create', '-f', 'qcow2', '-b', base, '-F', 'qcow2', ...options, top);
    qemuIo(top, 'write -P 3 4M 8M', 'write -z 40M 5M', 'write -P 4 50M 4k');
    qemuIo(top, 'write -c -P 5 55M 256k');
    qemuImg('snapshot', '-c', 'one', top);
    qemuIo(top, 'write -P 6 6M 2M');
    return top;
  }

  async function layoutOf(path: string, most: number): Promise<DiskLayout> {
    const disk = await openDisk(path);
    try {
      return runSteps(layoutSteps(disk, { most }));
    } finally {
      disk.close();
    }
  }

  const bytesOf = ({ kinds, totals }: DiskLayout, content: string, depth: number): number => {
    const index = kinds.findIndex((kind) => kind.content === content && kind.depth === depth);
    return totals[index]?.bytes ?? 0;
  };

  it('tells every run as qemu-img map does, and what snapshots share', async () => {
    const path = chain();
    const layout = await layoutOf(path, 1000);
    expect(layout).to.include({ exact: true, cellSize: null, start: 0, end: 64 * MIB });
    const runs = JSON.parse(qemuImg('map', '--output=json', path)) as MapRun[];
    const sum = (wanted: (run: MapRun) => boolean): number =>
      runs.filter(wanted).reduce((total, { length }) => total + length, 0);
    const top = ['data', 'shared', 'compressed'].map((content) => bytesOf(layout, content, 0));
    expect(top.reduce((a, b) => a + b)).to.equal(sum(({ data, depth }) => data && depth === 0));
    expect(bytesOf(layout, 'data', 1)).to.equal(sum(({ data, depth }) => data && depth === 1));
    expect(bytesOf(layout, 'zero', 0)).to.equal(5 * MIB);
    expect(bytesOf(layout, 'unallocated', 0)).to.equal(sum(({ present }) => !present));
    // What was written anew is the disk's own; what the snapshot has of the rest is shared.
    expect(top).to.deep.equal([2 * MIB, 6 * MIB + 4096, 256 << 10]);
    expect(layout.partialClusters).to.equal(1);
    for (const { start, place } of layout.cells) {
      const run = runs.find((one) => start >= one.start && start < one.start + one.length)!;
      if (run.offset === undefined) continue;
      expect(place).to.deep.equal({ offset: run.offset + start - run.start, depth: run.depth });
    }
    expect(layout.fragmentation[1]).to.include({ backwards: 0, bytes: 7 * MIB });
  });

  it('tells cells of one size where there are more runs, with the same totals', async () => {
    const path = chain();
    const exact = await layoutOf(path, 1000);
    const coarse = await layoutOf(path, 8);
    expect(coarse).to.include({ exact: false, cellSize: 8 * MIB });
    expect(coarse.cells).to.have.length(8);
    expect(coarse.totals).to.deep.equal(exact.totals);
    expect(coarse.fragmentation).to.deep.equal(exact.fragmentation);
    for (const { length, shares } of coarse.cells) {
      expect([...shares.values()].reduce((a, b) => a + b)).to.equal(length);
    }
    for (const layout of [exact, coarse]) {
      let end = 0;
      for (const { start, length } of layout.cells) {
        expect(start).to.equal(end);
        end = start + length;
      }
      expect(end).to.equal(64 * MIB);
    }
  });

  it('counts pieces that lie in another order than on the disk', async () => {
    const path = folder.at('vm.qcow2');
    qemuImg('create', '-f', 'qcow2', path, '8M');
    for (const megabyte of [6, 4, 2, 0]) qemuIo(path, `write ${megabyte}M 64k`);
    const { fragmentation } = await layoutOf(path, 100);
    expect(fragmentation).to.deep.equal([{ bytes: 4 * 65536, pieces: 4, backwards: 3 }]);
  });

  it('knows a raw file, and an empty disk', async () => {
    const path = folder.at('vm.raw');
    writeFileSync(path, '');
    expect((await layoutOf(path, 10)).cells).to.deep.equal([]);
    truncateSync(path, 2 * MIB);
    appendFileSync(path, Buffer.alloc(MIB, 1));
    truncateSync(path, 4 * MIB);
    const layout = await layoutOf(path, 10);
    expect(bytesOf(layout, 'data', 0)).to.equal(MIB);
    expect(bytesOf(layout, 'zero', 0)).to.equal(3 * MIB);
  });
});
