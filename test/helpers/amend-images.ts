/** Random images for amending: zero clusters of every kind, snapshots that share them, VM state. */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { IoBuffer } from '#src/sys/io-buffer.js';
import { withWriter } from './crash-session.js';
import { qemuImg, tryQemuImg, tryQemuIo } from './qemu.js';
import { pattern, type Random } from './random.js';
import { readDisk, withImage } from './read.js';

const SIZE = 1 << 20;
const SECTOR = 512;

/** Makes one at `folder`/image.qcow2, its backing file beside it. Answers its path. */
export function makeImage(folder: string, random: Random): string {
  const path = join(folder, 'image.qcow2');
  rmSync(path, { force: true });
  const cluster = random.pick(['512', '4k', '64k']);
  const version = random.pick([
    ['compat=0.10'],
    ['compat=1.1'],
    ['compat=1.1', `refcount_bits=${random.pick([2, 4, 8, 16, 32, 64])}`],
    ['compat=1.1', 'lazy_refcounts=on'],
    ['compat=1.1', 'compression_type=zstd'],
  ]);
  const options = [`cluster_size=${cluster}`, ...version].join();
  const backing = random.chance(0.4) ? ['-b', makeBase(folder), '-F', 'raw'] : [];
  qemuImg('create', '-q', '-f', 'qcow2', '-o', options, ...backing, path, String(SIZE));
  for (let round = 0; round < 1 + random.below(4); round++) {
    // Compressed data is refused where a cluster has something.
    tryQemuIo(...Array.from({ length: 12 }, () => ['-c', command(random)]).flat(), path);
    const action = random.below(4);
    // Refused where counts are too narrow.
    if (action === 0) tryQemuImg('snapshot', '-c', `s${round}`, path);
    if (action === 1) saveVm(path, `vm${round}`, random);
  }
  // QEMU leaves errors of its own where counts have no room, and where it fails to write compressed.
  tryQemuImg('check', '-q', '-r', 'all', path);
  return path;
}

function makeBase(folder: string): string {
  const path = join(folder, 'base.raw');
  writeFileSync(path, pattern(99, SIZE - 70_000));
  return path;
}

function command(random: Random): string {
  const offset = random.below(SIZE / SECTOR) * SECTOR;
  const length = Math.min(SIZE - offset, (1 + random.below(200)) * SECTOR);
  const first = offset - (offset % 65536);
  return random.pick([
    `write -P ${1 + random.below(200)} ${offset} ${length}`,
    `write -z ${offset} ${length}`,
    `write -z ${offset} ${length}`,
    `write -z -u ${offset} ${length}`,
    `discard ${offset} ${length}`,
    `write -c -P ${1 + random.below(200)} ${first} 65536`,
  ]);
}

function saveVm(path: string, name: string, random: Random): void {
  const size = (1 + random.below(100)) * SECTOR;
  const bytes = pattern(size, size);
  const read = (offset: number, length: number, target: IoBuffer, at: number) => {
    bytes.copy(target.bytes, at, offset, offset + length);
  };
  withWriter(path, null, ({ writer }) => {
    try {
      writer!.createSnapshot(name, { vmState: { size, read } });
    } catch {
      // Counts may be too narrow for it.
    }
    writer!.flushAll();
  });
}

/** All that can be read of an image. */
export interface Contents {
  readonly disk: Buffer;
  readonly snapshots: readonly { name: string; disk: Buffer; vmState: Buffer }[];
}

export function contentsOf(path: string): Contents {
  return withImage(path, ({ image }) => ({
    disk: readDisk(image.disk),
    snapshots: image.snapshots().map(({ view, snapshot }) => ({
      name: snapshot.name,
      disk: readDisk(image.snapshotDisk(view)),
      vmState: snapshot.vmStateSize === 0 ? Buffer.alloc(0) : readDisk(image.vmState(view)),
    })),
  }));
}

/** What differs, in words; null where nothing does. */
export function difference(before: Contents, after: Contents, common: number): string | null {
  const names = ({ snapshots }: Contents) => snapshots.map(({ name }) => name).join();
  if (names(before) !== names(after)) return `snapshots ${names(after)}, not ${names(before)}`;
  const same = (a: Buffer, b: Buffer) => a.subarray(0, common).equals(b.subarray(0, common));
  if (!same(before.disk, after.disk)) return 'the disk';
  for (const [n, snapshot] of before.snapshots.entries()) {
    const now = after.snapshots[n]!;
    if (!snapshot.disk.equals(now.disk)) return `snapshot ${snapshot.name}`;
    if (!snapshot.vmState.equals(now.vmState)) return `VM state of ${snapshot.name}`;
  }
  return null;
}
