/**
 * The images that are measured. Each kind is made once, by qemu-img and qemu-io, in a directory of
 * its own that is renamed into place when it is complete, so that a kept directory can be trusted.
 */
import { randomFillSync } from 'node:crypto';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { writeMixedDisk } from './mixed-disk.js';
import { isInstalled, run } from './process.js';

/** Made once and kept. */
export type KeptKind =
  | 'plain'
  | 'zlib'
  | 'zstd'
  | 'chain16'
  | 'mapped1g'
  | 'mixed'
  | 'mixedquarter'
  | 'mapped1t'
  | EncryptedKind;
/** The modes of LUKS. */
export type EncryptedKind = 'luks-xts' | 'luks-cbc';
/** Made anew for each mount that writes: without data, or without data over the plain image. */
export type FreshKind = 'empty' | 'overlay' | 'empty64g';
export type ImageKind = KeptKind | FreshKind;

export const MIB = 2 ** 20;
export const GIB = 2 ** 30;
export const CLUSTER_SIZE = 64 * 1024;
/** How often QEMU is asked to time a key: it fails where its clock has no tick meanwhile. */
const MOST_TIMINGS = 30;
const CHAIN_LENGTH = 16;

export interface Image {
  kind: ImageKind;
  /** The qcow2 file: the top one of a chain. */
  path: string;
  /** Every qcow2 file that holds data of it. */
  files: string[];
  /** The same disk as a raw file. */
  rawPath: string;
  /** The file with its passphrase, where it is encrypted. */
  keyPath: string | undefined;
  /** Virtual size in bytes. */
  size: number;
  /** Whether the files are too large to read whole: only their metadata is kept in memory. */
  isSparse: boolean;
}

/** Incompressible bytes: no cluster of it is zero, and nothing can be gained by compressing. */
function fillRandom(buffer: Buffer): void {
  randomFillSync(buffer);
}

/** Text-like bytes that deflate takes to about a third, as file systems with programs and logs. */
function fillWords(buffer: Buffer): void {
  const words = Array.from({ length: 2048 }, (_, index) => {
    const length = 3 + ((index * 7) % 9);
    return randomFillSync(Buffer.alloc(length)).toString('base64').slice(0, length);
  });
  const choices = randomFillSync(new Uint16Array(buffer.length / 4));
  let at = 0;
  for (let next = 0; at < buffer.length; next++) {
    at += buffer.write(`${words[choices[next]! % words.length]} `, at, 'latin1');
  }
}

/** Writes `size` bytes, a fresh 16 MiB at a time. */
function writeRaw(path: string, size: number, fill: (buffer: Buffer) => void): void {
  const buffer = Buffer.alloc(Math.min(size, 16 * MIB));
  const fd = openSync(path, 'wx');
  try {
    for (let done = 0; done < size; done += buffer.length) {
      fill(buffer);
      writeSync(fd, buffer, 0, Math.min(buffer.length, size - done));
    }
  } finally {
    closeSync(fd);
  }
}

function createHole(path: string, size: number): void {
  const fd = openSync(path, 'wx');
  ftruncateSync(fd, size);
  closeSync(fd);
}

async function createConverted(directory: string, size: number, fill: (buffer: Buffer) => void) {
  const raw = join(directory, 'disk.img');
  writeRaw(raw, size, fill);
  await run('qemu-img', [
    'convert',
    '-f',
    'raw',
    '-O',
    'qcow2',
    raw,
    join(directory, 'disk.qcow2'),
  ]);
}

async function createEncrypted(directory: string, size: number, mode: 'xts' | 'cbc') {
  const [raw, key] = [join(directory, 'disk.img'), keyIn(directory)];
  writeRaw(raw, size, fillRandom);
  writeFileSync(key, 'a passphrase');
  const secret = ['--object', `secret,id=key,file=${key}`];
  const luks = `encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10`;
  const words = ['-f', 'raw', '-O', 'qcow2', '-o', `${luks},encrypt.cipher-mode=${mode}`];
  for (let timing = 1; ; timing++) {
    try {
      const target = join(directory, 'disk.qcow2');
      await run('qemu-img', ['convert', ...secret, ...words, raw, target]);
      return;
    } catch (error) {
      if (timing === MOST_TIMINGS || !String(error).includes('CPU usage')) throw error;
    }
  }
}

function keyIn(directory: string): string {
  return join(directory, 'key');
}

async function createCompressed(directory: string, size: number, type: 'zlib' | 'zstd') {
  const raw = join(directory, 'disk.img');
  writeRaw(raw, size, fillWords);
  const options = ['-o', `compression_type=${type}`, '-c', '-m', '4'];
  const target = join(directory, 'disk.qcow2');
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', ...options, raw, target]);
}

const layerName = (layer: number): string =>
  layer === CHAIN_LENGTH - 1 ? 'disk.qcow2' : `layer-${layer}.qcow2`;

/** A disk in use, as `mixed-disk.ts` has it, as a raw file and converted from that. */
async function createMixed(directory: string, size: number) {
  const [raw, target] = [join(directory, 'disk.img'), join(directory, 'disk.qcow2')];
  writeMixedDisk(raw, size, fillWords);
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, target]);
}

/** Layer N owns the clusters whose index is N modulo 16, and fills them with the byte N + 1. */
async function createChain(directory: string, size: number) {
  const at = (name: string): string => join(directory, name);
  for (let layer = 0; layer < CHAIN_LENGTH; layer++) {
    const backing = layer === 0 ? [] : ['-F', 'qcow2', '-b', layerName(layer - 1)];
    const path = at(layerName(layer));
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, path, `${size}`]);
    const writes: string[] = [];
    for (let offset = layer * CLUSTER_SIZE; offset < size; offset += CHAIN_LENGTH * CLUSTER_SIZE) {
      writes.push(`write -q -P ${layer + 1} ${offset} ${CLUSTER_SIZE}`);
    }
    // Whole clusters: nothing is copied up from the layers below.
    await run('qemu-io', ['-t', 'unsafe', '-f', 'qcow2', path], {
      input: `${writes.join('\n')}\n`,
    });
  }
  const raw = at('disk.img');
  await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', at('disk.qcow2'), raw]);
}

/** Every cluster allocated, none written: the tables of a full disk over a host file of holes. */
async function createMapped(directory: string, size: number) {
  const options = ['-f', 'qcow2', '-o', 'preallocation=metadata'];
  const path = join(directory, 'disk.qcow2');
  await run('qemu-img', ['create', '-q', ...options, path, `${size}`]);
  createHole(join(directory, 'disk.img'), size);
}

const creators: Record<KeptKind, (directory: string, size: number) => Promise<void>> = {
  plain: (directory, size) => createConverted(directory, size, fillRandom),
  zlib: (directory, size) => createCompressed(directory, size, 'zlib'),
  zstd: (directory, size) => createCompressed(directory, size, 'zstd'),
  chain16: createChain,
  mapped1g: createMapped,
  mixed: createMixed,
  mixedquarter: createMixed,
  mapped1t: createMapped,
  'luks-xts': (directory, size) => createEncrypted(directory, size, 'xts'),
  'luks-cbc': (directory, size) => createEncrypted(directory, size, 'cbc'),
};

/** Virtual size of each kind in bytes, where the plain image has `plainSize`. */
function sizeOf(kind: KeptKind, plainSize: number): number {
  if (kind === 'mapped1t') return 2 ** 40;
  if (kind === 'mapped1g') return GIB;
  if (kind === 'plain' || kind === 'mixed') return plainSize;
  return plainSize / (kind === 'chain16' || kind.startsWith('luks-') ? 2 : 4);
}

/** Makes the image in `baseDirectory`, or takes the one that an earlier run left there. */
export async function prepareImage(
  baseDirectory: string,
  kind: KeptKind,
  plainSize: number,
): Promise<Image> {
  if (!(await isInstalled('qemu-img'))) throw new Error('qemu-img is needed to make the images');
  const size = sizeOf(kind, plainSize);
  const directory = join(baseDirectory, `${kind}-${size / MIB}M`);
  if (!existsSync(directory)) {
    const partial = `${directory}.partial`;
    rmSync(partial, { recursive: true, force: true });
    mkdirSync(partial, { recursive: true });
    await creators[kind](partial, size);
    renameSync(partial, directory);
  }
  const names =
    kind === 'chain16' ? Array.from({ length: CHAIN_LENGTH }, (_, i) => layerName(i)) : [];
  const path = join(directory, 'disk.qcow2');
  return {
    kind,
    path,
    files: names.length === 0 ? [path] : names.map((name) => join(directory, name)),
    rawPath: join(directory, 'disk.img'),
    keyPath: kind.startsWith('luks-') ? keyIn(directory) : undefined,
    size,
    isSparse: kind === 'mapped1t',
  };
}

function readThrough(path: string): void {
  const buffer = Buffer.alloc(MIB);
  const fd = openSync(path, 'r');
  try {
    while (readSync(fd, buffer) > 0);
  } finally {
    closeSync(fd);
  }
}

/**
 * Brings the host's page cache to the same state for every peer: all of the image, or, of one that
 * is larger than memory, its tables and none of its data.
 */
export async function warmImage(image: Image, needsRaw: boolean): Promise<void> {
  const files = needsRaw ? [image.rawPath] : image.files;
  if (!image.isSparse) {
    for (const file of files) readThrough(file);
    return;
  }
  await run('sync', ['-d', ...files]);
  for (const file of files)
    await run('dd', [`if=${file}`, 'iflag=nocache', 'count=0', 'status=none']);
  if (!needsRaw) await run('qemu-img', ['check', '-q', image.path]);
}
