/** Disks and images for the tests of the mount, and comparing what a mount shows with them. */
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs';
import { expect } from 'chai';
import type { Sandbox } from './mount.js';

export const KIB = 1024;
export const MIB = 1024 * KIB;

/** Bytes that do not compress, the same for the same seed. */
export function noise(seed: number, length: number): Buffer {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = (seed * 2654435761 + 1) >>> 0 || 1;
  for (let index = 0; index < words.length; index++) {
    // xorshift32
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    words[index] = state;
  }
  return Buffer.from(words.buffer, 0, length);
}

export interface Piece {
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** Writes a sparse file of `size` bytes with those pieces in it. */
export function writeSparse(path: string, size: number, pieces: readonly Piece[]): void {
  const fd = openSync(path, 'w');
  try {
    for (const { at, bytes } of pieces) writeSync(fd, bytes, 0, bytes.length, at);
    ftruncateSync(fd, size);
  } finally {
    closeSync(fd);
  }
}

export type TableKind = 'mbr' | 'gpt' | 'small' | 'none';

const TABLES: Readonly<Record<Exclude<TableKind, 'none'>, string>> = {
  mbr: [
    'label: dos',
    'start=64, size=3000, type=83',
    'start=4096, size=2048, type=c',
    'start=8192, type=5',
    'start=8256, size=4000, type=83',
    'start=14336, size=1999, type=82',
  ].join('\n'),
  small: ['label: dos', 'start=64, size=1001', 'start=2048, size=2000'].join('\n'),
  gpt: [
    'label: gpt',
    'start=2048, size=3000, name="one"',
    'start=6144, size=4097, name="two, ä"',
  ].join('\n'),
};

/** A raw disk with data, zeroes, holes and, if wanted, a partition table. */
export async function makeRawDisk(
  sandbox: Sandbox,
  name: string,
  { size = 10 * MIB, table = 'none' as TableKind, seed = 1 } = {},
): Promise<string> {
  const path = sandbox.path(name);
  const at = [0.004, 0.11, 0.21, 0.4, 0.41, 0.62, 0.8].map((part) => Math.floor(part * size));
  const pieces = at.map((start, index) => ({
    at: start,
    bytes: noise(seed * 100 + index, Math.min(7000 + index * 70_001, size - start)),
  }));
  const text = Buffer.alloc(300 * KIB, `a text that compresses well, ${seed}. `);
  const last = { at: size - 1500, bytes: noise(seed * 100 + 50, 1500) };
  writeSparse(path, size, [...pieces, { at: Math.floor(0.3 * size), bytes: text }, last]);
  if (table !== 'none') {
    await sandbox.must('bash', ['-c', `sfdisk -q --no-reread "$0" <<< "$1"`, path, TABLES[table]]);
  }
  return path;
}

/** Runs commands of qemu-io in one go. */
export async function qemuIo(
  sandbox: Sandbox,
  image: string,
  commands: readonly string[],
): Promise<void> {
  const format = image.endsWith('.raw') ? 'raw' : 'qcow2';
  const output = await sandbox.must('qemu-io', [
    ...['-t', 'unsafe', '-f', format, ...commands.flatMap((command) => ['-c', command])],
    image,
  ]);
  // Its exit status tells nothing of failed commands before the last.
  if (/failed|error|must be/i.test(output)) throw new Error(`qemu-io ${image}: ${output}`);
}

/** Makes a qcow2 image; `options` is what `-o` takes. */
export async function createImage(
  sandbox: Sandbox,
  name: string,
  size: number,
  options = '',
  backing?: { readonly file: string; readonly format: string },
): Promise<string> {
  const path = sandbox.path(name);
  const below = backing === undefined ? [] : ['-b', backing.file, '-F', backing.format];
  const more = options === '' ? [] : ['-o', options];
  const words = ['create', '-q', '-f', 'qcow2', ...more, ...below, path, String(size)];
  await sandbox.must('qemu-img', words);
  return path;
}

/** What QEMU reads of an image, as a raw file: the oracle. Sparse. */
export async function oracle(
  sandbox: Sandbox,
  image: string,
  name = `${image}.oracle`,
): Promise<string> {
  const format = image.endsWith('.raw') ? 'raw' : 'qcow2';
  await sandbox.must('qemu-img', [
    ...['convert', '-U', '-t', 'unsafe', '-f', format, '-O', 'raw', image, name],
  ]);
  return name;
}

/** The same of a snapshot, at the snapshot's own size: taken from a copy that went back to it. */
export async function snapshotOracle(
  sandbox: Sandbox,
  image: string,
  snapshot: string,
): Promise<string> {
  const copy = `${image}.at-${snapshot}`;
  await sandbox.must('cp', ['--sparse=always', image, copy]);
  await sandbox.must('qemu-img', ['snapshot', '-a', snapshot, copy]);
  return oracle(sandbox, copy);
}

/** A part of an oracle: `size` bytes at `start`. */
export interface Window {
  readonly file: string;
  readonly start: number;
  readonly size: number;
}

export function wholeOf(file: string): Window {
  return { file, start: 0, size: statSync(file).size };
}

/** The partitions that sfdisk sees on a raw disk, by number. */
export async function partitionsOf(sandbox: Sandbox, disk: string): Promise<Map<number, Window>> {
  const { status, stdout } = await sandbox.run('sfdisk', ['-J', disk]);
  const windows = new Map<number, Window>();
  if (status !== 0) return windows;
  const { partitiontable } = JSON.parse(stdout) as {
    partitiontable: { partitions: { node: string; start: number; size: number; type: string }[] };
  };
  for (const { node, start, size, type } of partitiontable.partitions) {
    const number = Number(/\d+$/.exec(node)![0]);
    if (type !== '5') windows.set(number, { file: disk, start: start * 512, size: size * 512 });
  }
  return windows;
}

/** Reads `path` to its end and compares it with the window, through the page cache. */
export async function expectSame(sandbox: Sandbox, path: string, window: Window): Promise<void> {
  expect(statSync(path).size, `size of ${path}`).to.equal(window.size);
  const range = ['-n', String(window.size), '-i', `0:${window.start}`];
  const { status, stdout, stderr } = await sandbox.run('cmp', [...range, path, window.file]);
  expect({ path, status, words: stdout + stderr }).to.deep.equal({ path, status: 0, words: '' });
}

/** The same by O_DIRECT, with reads of `blockSize` bytes. */
export async function expectSameDirect(
  sandbox: Sandbox,
  path: string,
  window: Window,
  blockSize: number,
): Promise<void> {
  const { start, size, file } = window;
  const script =
    'dd if="$0" iflag=direct bs="$1" status=none | cmp -n "$2" -i "0:$3" - "$4" && ' +
    'test "$(stat -c %s "$0")" = "$2"';
  const words = [path, String(blockSize), String(size), String(start), file];
  const { status, stdout, stderr } = await sandbox.script(script, words);
  const label = `${path} by ${blockSize}`;
  expect({ label, status, words: stdout + stderr }).to.deep.equal({ label, status: 0, words: '' });
}

/** One run of a file: data, or a hole. */
export interface Run {
  readonly hole: boolean;
  readonly start: number;
  readonly end: number;
}

/** Walks a file with SEEK_DATA and SEEK_HOLE. */
export async function runsOf(sandbox: Sandbox, path: string): Promise<Run[]> {
  const size = statSync(path).size;
  const output = await sandbox.must('xfs_io', ['-r', '-c', 'seek -a -r 0', path]);
  const marks = [...output.matchAll(/^(DATA|HOLE)\t(\d+)$/gm)].map(([, kind, offset]) => ({
    hole: kind === 'HOLE',
    start: Number(offset),
  }));
  return marks
    .map((mark, index) => ({ ...mark, end: marks[index + 1]?.start ?? size }))
    .filter(({ start, end }) => start < end);
}

/** Holds the runs of `path` against its bytes: they cover it, alternate, and holes are zeroes. */
export function checkRuns(runs: readonly Run[], window: Window): void {
  const bytes = readFileSync(window.file).subarray(window.start, window.start + window.size);
  let at = 0;
  for (const [index, { hole, start, end }] of runs.entries()) {
    expect(start, 'runs adjoin').to.equal(at);
    if (index > 0) expect(hole, 'runs alternate').to.not.equal(runs[index - 1]!.hole);
    if (hole) expect(bytes.subarray(start, end).every((byte) => byte === 0)).to.equal(true);
    at = end;
  }
  expect(at, 'runs reach the end').to.equal(window.size);
}

export interface CraftedSnapshot {
  readonly id: string;
  readonly name: string | Uint8Array;
  readonly diskSize: number;
  readonly dateSec?: number;
  readonly dateNsec?: number;
}

/**
 * Gives the image a snapshot table with these entries, all of which share the active L1 table.
 * QEMU takes long for thousands, and refuses some names. Refcounts are not kept.
 */
export function craftSnapshots(image: string, snapshots: readonly CraftedSnapshot[]): void {
  const fd = openSync(image, 'r+');
  try {
    const header = Buffer.alloc(104);
    readSync(fd, header, 0, header.length, 0);
    const clusterSize = 2 ** header.readUInt32BE(20);
    const [l1Size, l1TableOffset] = [header.readUInt32BE(36), header.readBigUInt64BE(40)];
    const entries = snapshots.map((snapshot) => snapshotEntry(l1Size, l1TableOffset, snapshot));
    const offset = Math.ceil(fstatSync(fd).size / clusterSize) * clusterSize;
    const table = Buffer.concat(entries);
    writeSync(fd, table, 0, table.length, offset);
    ftruncateSync(fd, Math.ceil((offset + table.length) / clusterSize) * clusterSize);
    header.writeUInt32BE(snapshots.length, 60);
    header.writeBigUInt64BE(BigInt(offset), 64);
    writeSync(fd, header, 60, 12, 60);
  } finally {
    closeSync(fd);
  }
}

/** An entry of the snapshot table, as docs/interop/qcow2.txt lays it out. */
function snapshotEntry(l1Size: number, l1TableOffset: bigint, snapshot: CraftedSnapshot): Buffer {
  const { id, name, diskSize, dateSec = 1_600_000_000, dateNsec = 0 } = snapshot;
  const [idBytes, nameBytes] = [Buffer.from(id), Buffer.from(name as string)];
  const fixed = Buffer.alloc(40 + 16);
  fixed.writeBigUInt64BE(l1TableOffset, 0);
  fixed.writeUInt32BE(l1Size, 8);
  fixed.writeUInt16BE(idBytes.length, 12);
  fixed.writeUInt16BE(nameBytes.length, 14);
  fixed.writeUInt32BE(dateSec, 16);
  fixed.writeUInt32BE(dateNsec, 20);
  fixed.writeUInt32BE(16, 36);
  fixed.writeBigUInt64BE(BigInt(diskSize), 48);
  const length = fixed.length + idBytes.length + nameBytes.length;
  return Buffer.concat([fixed, idBytes, nameBytes, Buffer.alloc((8 - (length % 8)) % 8)]);
}
