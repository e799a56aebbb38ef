/**
 * Images that are written to: copies of a kept image, or new ones, in the run's own directory.
 * Before measuring, each peer shows that what it is told to write can be read from the image; and
 * after each measurement qemu-img checks the image, for a fast writer that corrupts is no writer.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { randomInt } from 'node:crypto';
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import { CLUSTER_SIZE, GIB, type Image, type ImageKind } from './images.js';
import { type Mount, MountRefused } from './mount.js';
import { run } from './process.js';

const VAST_SIZE = 64 * GIB;
const PROBE_COUNT = 64;
/** Neither begins nor ends at a block: the daemon must keep what is around it. */
const PROBE_SIZE = 5000;

export interface Stage {
  directory: string;
  /** Virtual size of the images but the vast one, in bytes. */
  size: number;
  /** The image that is copied, or lies below; undefined where no workload needs one. */
  plain: Image | undefined;
}

export interface WritableImage {
  image: Image;
  /** What the image shows before the first write. */
  referencePath: string;
  /** Where it is written to. */
  filePath: string;
  isRaw: boolean;
}

function createHole(path: string, size: number): void {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, size);
  closeSync(fd);
}

function plainOf(stage: Stage): Image {
  if (!stage.plain) throw new Error('no plain image was prepared');
  return stage.plain;
}

/** A copy that is kept for the run is made by the first who needs it. */
async function copyPlain(source: string, target: string): Promise<void> {
  if (existsSync(target)) return;
  const partial = `${target}.partial`;
  await run('cp', ['--reflink=auto', source, partial]);
  await run('sync', ['-d', partial]);
  renameSync(partial, target);
}

/** Makes the image `name`, a raw file or a qcow2 image, in the stage's directory. */
export async function createWritable(
  kind: ImageKind,
  stage: Stage,
  isRaw: boolean,
  name: string,
): Promise<WritableImage> {
  mkdirSync(stage.directory, { recursive: true });
  const path = join(stage.directory, `${name}.qcow2`);
  const rawPath = join(stage.directory, `${name}.img`);
  const filePath = isRaw ? rawPath : path;
  const size = kind === 'empty64g' ? VAST_SIZE : stage.size;
  let referencePath = rawPath;
  if (kind === 'plain') {
    const plain = plainOf(stage);
    referencePath = plain.rawPath;
    await copyPlain(isRaw ? plain.rawPath : plain.path, filePath);
  } else {
    const base = kind === 'overlay' ? ['-F', 'qcow2', '-b', plainOf(stage).path] : [];
    if (kind === 'overlay') referencePath = plainOf(stage).rawPath;
    createHole(rawPath, size);
    if (!isRaw) await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...base, path, `${size}`]);
  }
  const image = {
    kind,
    path,
    files: [path],
    rawPath,
    keyPath: undefined,
    size,
    isSparse: kind === 'empty64g',
  };
  return { image, referencePath, filePath, isRaw };
}

export function removeWritable({ image }: WritableImage): void {
  rmSync(image.path, { force: true });
  rmSync(image.rawPath, { force: true });
}

export interface Probe {
  offset: number;
  /** The byte that fills it. */
  pattern: number;
}

async function probe(handle: FileHandle, { offset, pattern }: Probe): Promise<void> {
  const written = Buffer.alloc(PROBE_SIZE, pattern);
  await handle.write(written, 0, PROBE_SIZE, offset);
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(PROBE_SIZE), 0, PROBE_SIZE, offset);
  if (!written.equals(buffer.subarray(0, bytesRead))) {
    throw new MountRefused(`does not show what was written at ${offset}`);
  }
}

/** Writes to random places of the mounted disk and reads them back; returns what is now where. */
export async function writeProbes(mount: Mount, size: number): Promise<Probe[]> {
  const stride = Math.floor(size / PROBE_COUNT);
  const probes = Array.from({ length: PROBE_COUNT }, (_, index) => ({
    offset: index * stride + randomInt(CLUSTER_SIZE * 2),
    pattern: index + 1,
  }));
  let handle: FileHandle | undefined;
  try {
    handle = await open(mount.diskPath, 'r+');
    for (const entry of probes) await probe(handle, entry);
    await handle.sync();
    return probes;
  } catch (error) {
    if (error instanceof MountRefused) throw error;
    throw new MountRefused(`cannot be written: ${(error as Error).message}`);
  } finally {
    await handle?.close();
  }
}

/** Throws MountRefused where the image itself, once unmounted, does not hold the probes. */
export async function verifyProbes(written: WritableImage, probes: Probe[]): Promise<void> {
  const commands = probes.map(
    ({ offset, pattern }) => `read -q -P ${pattern} ${offset} ${PROBE_SIZE}`,
  );
  const format = written.isRaw ? 'raw' : 'qcow2';
  try {
    await run('qemu-io', ['-r', '-f', format, written.filePath], {
      input: `${commands.join('\n')}\n`,
    });
    await checkWritable(written);
  } catch (error) {
    throw new MountRefused(`wrote wrong data: ${(error as Error).message}`);
  }
}

/** Throws where qemu-img finds errors or leaked clusters. */
export async function checkWritable({ isRaw, filePath }: WritableImage): Promise<void> {
  if (!isRaw) await run('qemu-img', ['check', '-q', '-f', 'qcow2', filePath]);
}
