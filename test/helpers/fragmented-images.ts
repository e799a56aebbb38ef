/** Images with holes and pieces all over, which QEMU makes: what compacting is for. */
import { rmSync } from 'node:fs';
import { qemuImg, qemuRead, tryQemuImg, tryQemuIo } from './qemu.js';
import { qemuDirty } from './qemu-bitmaps.js';
import type { Random } from './random.js';

const MIB = 1 << 20;

export interface FragmentedKind {
  readonly name: string;
  readonly options: string;
  readonly clusterSize: number;
  readonly size: number;
  readonly compressed?: boolean;
  readonly snapshots?: boolean;
  readonly bitmaps?: boolean;
}

export const FRAGMENTED_KINDS: readonly FragmentedKind[] = [
  { name: 'v2', options: 'compat=0.10', clusterSize: 4096, size: 2 * MIB, snapshots: true },
  {
    name: 'tiny clusters',
    options: 'refcount_bits=64',
    clusterSize: 512,
    size: MIB,
    snapshots: true,
  },
  {
    ...{ name: 'zlib', options: 'refcount_bits=8', clusterSize: 65536, size: 4 * MIB },
    ...{ compressed: true, snapshots: true },
  },
  {
    ...{ name: 'zstd, subclusters', options: 'compression_type=zstd,extended_l2=on' },
    ...{ clusterSize: 16384, size: 4 * MIB, compressed: true, snapshots: true },
  },
  {
    ...{ name: 'counts of one bit', options: 'refcount_bits=1', clusterSize: 4096, size: 2 * MIB },
    ...{ compressed: true, bitmaps: true },
  },
  { name: 'large clusters', options: 'lazy_refcounts=on', clusterSize: 2 * MIB, size: 16 * MIB },
  {
    ...{ name: 'bitmaps', options: 'refcount_bits=32', clusterSize: 512, size: 2 * MIB },
    ...{ bitmaps: true },
  },
];

/** Commands of qemu-io that leave holes and pieces all over the disk. */
function scramble(
  { size, clusterSize, compressed }: FragmentedKind,
  count: number,
  random: Random,
): string[] {
  return Array.from({ length: count }, () => {
    const length = Math.min(size / 2, clusterSize * random.pick([0.5, 1, 2, 5]));
    const at = Math.floor((random.below(size - length) / clusterSize) * 2) * (clusterSize / 2);
    const start = Math.floor(at / clusterSize) * clusterSize;
    const seed = 1 + random.below(250);
    const kind = random.below(10);
    if (kind < 2) return `discard ${start} ${Math.max(length, clusterSize)}`;
    if (kind < 3) return `write -z ${start} ${length}`;
    if (kind < 7 && compressed === true) return `write -c -P ${seed} ${start} ${clusterSize}`;
    return `write -P ${seed} ${start} ${length}`;
  });
}

/**
 * An image that QEMU made, as it left it: where compressed data comes over other data, QEMU 7.2 now and then
 * leaves entries that it cannot read itself, and another one is made.
 */
export function makeFragmented(
  path: string,
  kind: FragmentedKind,
  random: Random,
  scale = 1,
): void {
  do {
    makeOne(path, { ...kind, size: kind.size * scale }, 40 * scale, random);
  } while (!canRead(path, kind));
}

function canRead(path: string, kind: FragmentedKind): boolean {
  const read = `${path}.read`;
  const readable = [[], ...namesOf(kind).map((name) => ['-l', name])].every((which) => {
    return tryQemuImg('convert', '-O', 'raw', ...which, path, read).status === 0;
  });
  rmSync(read, { force: true });
  return readable;
}

function namesOf({ snapshots }: FragmentedKind): string[] {
  return snapshots === true ? ['s0', 's2'] : [];
}

function makeOne(path: string, kind: FragmentedKind, count: number, random: Random): void {
  const options = `${kind.options},cluster_size=${kind.clusterSize}`;
  qemuImg('create', '-q', '-f', 'qcow2', '-o', options, path, String(kind.size));
  for (let round = 0; round < 3; round++) {
    // Some are refused: compressed data replaces nothing.
    const words = scramble(kind, count, random).flatMap((command) => ['-c', command]);
    tryQemuIo('-f', 'qcow2', ...words, path);
    if (kind.bitmaps === true && round < 2) qemuImg('bitmap', '--add', path, `b${round}`);
    if (kind.snapshots === true) qemuImg('snapshot', '-c', `s${round}`, path);
  }
  if (kind.snapshots === true) qemuImg('snapshot', '-d', 's1', path);
  tryQemuImg('check', '-q', '-r', 'all', path);
}

/** All that QEMU reads of it. */
export function contentsOf(path: string, kind: FragmentedKind): unknown {
  return {
    disks: [qemuRead(path), ...namesOf(kind).map((name) => qemuRead(path, name))].map((bytes) =>
      bytes.toString('latin1'),
    ),
    bitmaps: kind.bitmaps === true ? ['b0', 'b1'].map((name) => qemuDirty(path, name)) : [],
  };
}
