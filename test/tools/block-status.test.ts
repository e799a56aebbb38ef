import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { humanMap, jsonMap } from '#src/cli/map.js';
import { blockStatus } from '#src/tools/block-status.js';
import { openDisk } from '#src/tools/open-disk.js';
import { chainPlan, writeChain } from '../helpers/chains.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { pattern, printSeed, SEED } from '../helpers/random.js';

interface Range {
  readonly at: number;
  readonly length: number;
}

const RUNS = Number(process.env.QCOW2FS_PROPERTY_RUNS ?? 150);

/** The texts of both forms; an error's message follows what came before it. */
async function ours(path: string, format: string): Promise<string[]> {
  const opened = await openDisk(path, { policy: { format } });
  try {
    return [jsonMap(blockStatus(opened), 0), humanMap(blockStatus(opened))].map((lines) => {
      let text = '';
      try {
        for (const line of lines) text += line;
      } catch (error) {
        text += (error as Error).message;
      }
      return text;
    });
  } finally {
    opened.abandon();
  }
}

function qemus(folder: string, path: string, format: string): string[] {
  return ['json', 'human'].map((output) => {
    const words = ['map', `--output=${output}`, '-f', format, path];
    const { stdout, stderr } = spawnSync('qemu-img', words, { cwd: folder, encoding: 'utf8' });
    return stdout + stderr.replace(/^qemu-img: /, '').replace(/\n$/, '');
  });
}

describe('blockStatus()', () => {
  printSeed();

  it('agrees with qemu-img map on any chain', async () => {
    const property = fc.asyncProperty(chainPlan, async (chain) => {
      const folder = mkdtempSync(join(tmpdir(), 'qcow2fs-map-'));
      try {
        const path = writeChain(chain, (name) => join(folder, name));
        const { format } = chain[0]!;
        // QEMU takes the name of a data file from where it runs.
        const texts = (await ours(path, format)).map((text) =>
          text.replaceAll(`${folder}/data-`, 'data-'),
        );
        expect(texts).to.deep.equal(qemus(folder, path, format));
      } finally {
        rmSync(folder, { recursive: true });
      }
    });
    await fc.assert(property, { seed: SEED, numRuns: RUNS });
  });

  /** A part of a disk of 2 MiB, in units of 4 KiB. */
  const range = fc.record({ at: fc.nat(511), length: fc.integer({ min: 1, max: 64 }) });
  const layer = fc.record({
    options: fc.constantFrom(
      '',
      'preallocation=metadata',
      'preallocation=falloc',
      'extended_l2=on,preallocation=metadata',
      'cluster_size=4k,preallocation=metadata',
      'cluster_size=4k',
      'compat=0.10,cluster_size=512',
    ),
    writes: fc.array(range, { maxLength: 12 }),
    holes: fc.array(range, { maxLength: 6 }),
  });

  it('agrees with qemu-img map on holes of the host', async () => {
    const layers = fc.array(layer, { minLength: 1, maxLength: 2 });
    const property = fc.asyncProperty(layer, layers, async (base, above) => {
      const folder = mkdtempSync(join(tmpdir(), 'qcow2fs-map-'));
      try {
        makeRaw(join(folder, 'base'), base);
        let below = 'base';
        for (const [n, { options, writes }] of above.entries()) {
          const name = join(folder, String(n));
          const size = `size=${2 + n}M`;
          const backing = /prealloc/.test(options) ? [] : ['-b', below, '-F', formatOf(below)];
          const all = options === '' ? size : `${options},${size}`;
          qemuImg('create', '-q', '-f', 'qcow2', ...backing, '-o', all, name);
          const commands = writes.map(
            ({ at, length }) => `write ${at * 4}k ${Math.min(length, 512 - at) * 4}k`,
          );
          if (commands.length > 0) qemuIo(name, ...commands);
          below = String(n);
        }
        for (const name of ['base', below]) {
          const path = join(folder, name);
          const format = formatOf(name);
          expect(await ours(path, format)).to.deep.equal(qemus(folder, path, format));
        }
      } finally {
        rmSync(folder, { recursive: true });
      }
    });
    await fc.assert(property, { seed: SEED, numRuns: RUNS / 5 });
  });

  it('asks the host for holes in clusters from as many on as QEMU', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'qcow2fs-map-'));
    try {
      for (const clusterSize of [64, 256]) {
        const path = join(folder, `${clusterSize}`);
        qemuImg('create', '-q', '-f', 'qcow2', '-o', `cluster_size=${clusterSize}k`, path, '8M');
        qemuIo(path, 'write 0 8M');
        for (let end = 0; end < 24; end++) {
          // Data begins in the sixth cluster.
          const at = (6 * clusterSize + end * 68) * 1024;
          expect(spawnSync('fallocate', ['-p', '-o', `${at}`, '-l', '68k', path]).status).to.equal(
            0,
          );
          expect(await ours(path, 'qcow2')).to.deep.equal(qemus(folder, path, 'qcow2'), `${end}`);
        }
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  function formatOf(name: string): string {
    return name === 'base' ? 'raw' : 'qcow2';
  }

  /** A raw file with an odd end. */
  function makeRaw(path: string, { writes, holes }: { writes: Range[]; holes: Range[] }): void {
    writeFileSync(path, '');
    truncateSync(path, 1_500_000);
    const fd = openSync(path, 'r+');
    for (const { at, length } of writes)
      writeSync(fd, pattern(at + 1, length * 4096), 0, length * 4096, at * 4096);
    closeSync(fd);
    for (const { at, length } of holes) {
      const words = ['-p', '-o', String(at * 4096), '-l', String(length * 4096), path];
      expect(spawnSync('fallocate', words).status).to.equal(0);
    }
    truncateSync(path, 1_500_000 - writes.length);
  }
});
