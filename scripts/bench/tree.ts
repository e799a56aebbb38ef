/**
 * A source tree unpacked into ext4 on a loop device over the disk: a tar is made once for the run,
 * and the time counts from the first file to the end of the unmount. Then the file system is checked
 * and compared with the tar.
 */
import { existsSync, mkdirSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MIB } from './images.js';
import { run } from './process.js';
import { seededNumbers } from './seeded.js';

const FILES_PER_FOLDER = 64;
/** Most files are small and a few are large, as in a source tree. */
const MEAN_FILE_SIZE = 20 * 1024;
const MAX_FILE_SIZE = 512 * 1024;
const CLEANUP_TIMEOUT_MS = 20_000;

export interface TreeInput {
  /** A directory of the run: the tar stays in it, the mount point does not. */
  scratch: string;
  /** The disk, `size` bytes and empty. */
  path: string;
  size: number;
  signal: AbortSignal;
}

/** A tar of ten files for each MiB of the disk: a fifth of it. Always the same bytes. */
async function prepareTar(scratch: string, size: number): Promise<string> {
  const tar = join(scratch, `tree-${size / MIB}M.tar`);
  if (existsSync(tar)) return tar;
  const tree = join(scratch, 'tree');
  const next = seededNumbers(2);
  const pool = Buffer.from(Uint32Array.from({ length: MIB }, next).buffer);
  for (let index = 0; index < (size / MIB) * 10; index++) {
    const folder = join(tree, `folder-${Math.floor(index / FILES_PER_FOLDER)}`);
    if (index % FILES_PER_FOLDER === 0) mkdirSync(folder, { recursive: true });
    const length = Math.ceil(-Math.log((next() + 1) / 2 ** 32) * MEAN_FILE_SIZE) || 1;
    const start = next() % (pool.length - MAX_FILE_SIZE);
    const end = start + Math.min(length, MAX_FILE_SIZE);
    writeFileSync(join(folder, `file-${index}.c`), pool.subarray(start, end));
  }
  const fixed = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0'];
  await run('tar', [...fixed, '-C', tree, '-cf', tar, '.']);
  rmSync(tree, { recursive: true, force: true });
  return tar;
}

/** Neither a mount nor a loop device stays, even where the disk does not answer any more. */
async function cleanUp(mountPoint: string, device: string): Promise<void> {
  const attempt = (command: string, ...args: string[]): Promise<string> =>
    run(command, args, { signal: AbortSignal.timeout(CLEANUP_TIMEOUT_MS) });
  const isMounted = await attempt('mountpoint', '-q', mountPoint).then(
    () => true,
    () => false,
  );
  if (isMounted) {
    await attempt('umount', mountPoint).catch(() =>
      attempt('umount', '-l', mountPoint).catch(() => ''),
    );
  }
  await attempt('losetup', '-d', device).catch(() => '');
  rmdirSync(mountPoint);
}

/** Bytes of the tar for each second, including sync and unmount. */
export async function measureTree(input: TreeInput): Promise<number> {
  const { scratch, path, size, signal } = input;
  const tar = await prepareTar(scratch, size);
  // All tables are written at once: no thread of ext4 works in the background afterwards.
  const eager = 'lazy_itable_init=0,lazy_journal_init=0,nodiscard';
  await run('mkfs.ext4', ['-q', '-F', '-E', eager, path], { signal });
  const device = (await run('losetup', ['--find', '--show', path], { signal })).trim();
  const mountPoint = join(scratch, 'tree-mount');
  mkdirSync(mountPoint, { recursive: true });
  try {
    await run('mount', ['-t', 'ext4', device, mountPoint], { signal });
    const start = performance.now();
    await run('tar', ['-C', mountPoint, '-xf', tar], { signal });
    await run('sync', ['-f', mountPoint], { signal });
    await run('umount', [mountPoint], { signal });
    const seconds = (performance.now() - start) / 1000;
    await run('e2fsck', ['-fn', device], { signal });
    await run('mount', ['-t', 'ext4', '-o', 'ro', device, mountPoint], { signal });
    await run('tar', ['-C', mountPoint, '--compare', '-f', tar], { signal });
    return statSync(tar).size / seconds;
  } finally {
    await cleanUp(mountPoint, device);
  }
}
