/** Images to convert: all kinds of clusters, chains, snapshots. */
import {
  copyFileSync,
  openSync,
  closeSync,
  ftruncateSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { qemuImg, qemuIo } from './qemu.js';
import { Random } from './random.js';

const MIB = 1 << 20;
const SIZE = 12 * MIB;

/** A raw disk of 12 MiB with data that packs well, data that does not, zeroes, and holes. */
export function writeMixedDisk(path: string, seed: number, size = SIZE): void {
  const random = new Random(seed);
  const fd = openSync(path, 'w');
  ftruncateSync(fd, size);
  for (let n = 0; n < 60; n++) {
    const offset = random.below(size / 512) * 512;
    const length = Math.min(random.pick([512, 1000, 4096, 65536, 300_000]), size - offset);
    const bytes = new Uint8Array(length);
    const kind = random.below(3);
    for (let at = 0; kind > 0 && at < length; at++) {
      bytes[at] = kind === 1 ? random.below(256) : 97 + (at % 23);
    }
    writeSync(fd, bytes, 0, length, offset);
  }
  closeSync(fd);
}

/** In `folder`: mixed.raw and what follows from it. */
export function makeConvertImages(folder: string): void {
  const at = (name: string) => join(folder, name);
  writeMixedDisk(at('mixed.raw'), 5);
  const convert = (name: string, ...words: string[]) =>
    qemuImg('convert', '-f', 'raw', '-O', 'qcow2', ...words, at('mixed.raw'), at(name));
  convert('plain.qcow2');
  convert('packed.qcow2', '-c');
  convert('fine.qcow2', '-c', '-o', 'cluster_size=4k,compression_type=zstd');
  convert('subclusters.qcow2', '-o', 'extended_l2=on');
  copyFileSync(at('mixed.raw'), at('base.raw'));
  truncateSync(at('base.raw'), 8 * MIB);
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', at('over.qcow2'), '12M');
  const changes = [
    'write -P 7 1M 300k',
    'write -z 2M 200k',
    'write -P 9 9M 100k',
    'discard 3M 100k',
  ];
  qemuIo(at('over.qcow2'), ...changes);
  qemuImg('create', '-q', '-f', 'qcow2', at('kept.qcow2'), '4M');
  qemuIo(at('kept.qcow2'), 'write -P 1 0 1M');
  qemuImg('snapshot', '-c', 'one', at('kept.qcow2'));
  qemuIo(at('kept.qcow2'), 'write -P 2 512k 1M');
  qemuImg('create', '-q', '-f', 'qcow2', at('small.qcow2'), '1M');
  qemuIo(at('small.qcow2'), 'write -c -P 1 0 64k', 'write -P 3 64k 64k');
  copyFileSync(at('small.qcow2'), at('unreadable.qcow2'));
  const fd = openSync(at('unreadable.qcow2'), 'r+');
  writeSync(fd, Uint8Array.of(0xff, 0xff, 0xff), 0, 3, 0x50000);
  closeSync(fd);
  writeFileSync(at('room.raw'), '');
  truncateSync(at('room.raw'), 8 * MIB);
}
