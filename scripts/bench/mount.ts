/**
 * A peer's mount from start to end: waits until the first byte can be read, checks what it shows
 * against the raw file, and on release leaves neither a mount nor a process behind.
 */
import { randomInt } from 'node:crypto';
import { mkdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Image } from './images.js';
import type { Access, Peer, PeerContext } from './peers.js';
import {
  type Daemon,
  holdersOf,
  isAlive,
  reasonIn,
  residentBytes,
  run,
  startDaemon,
  waitFor,
} from './process.js';

const MOUNT_TIMEOUT_MS = 20_000;
const RELEASE_TIMEOUT_MS = 10_000;
/** What was written is flushed before the daemon ends. */
const UNMOUNT_TIMEOUT_MS = 60_000;
const SAMPLE_COUNT = 64;
const SAMPLE_SIZE = 4096;

/** The peer cannot show this image (or shows it wrong): it is left out, and the run goes on. */
export class MountRefused extends Error {}

export interface Mount {
  diskPath: string;
  /** From starting the command to having read the first byte, in milliseconds. */
  firstByteMs: number;
  /** Resident memory of the peer's processes now, in bytes. */
  residentBytes(): number;
  release(): Promise<void>;
}

/** Whether the first byte can be read. Asynchronous, so that a peer that hangs blocks only this. */
async function hasFirstByte(path: string): Promise<boolean> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, 'r');
    return (await handle.read(Buffer.alloc(1), 0, 1, 0)).bytesRead === 1;
  } catch {
    return false; // not mounted yet
  } finally {
    await handle?.close();
  }
}

/** Asks nothing of the mount itself, whose daemon may have died or hang. */
function isMounted(mountPoint: string): boolean {
  const path = join(realpathSync(dirname(mountPoint)), basename(mountPoint));
  return readFileSync('/proc/self/mounts', 'utf8').includes(` ${path} `);
}

async function waitForFirstByte(path: string, daemon: Daemon, signal: AbortSignal): Promise<void> {
  const end = performance.now() + MOUNT_TIMEOUT_MS;
  for (;;) {
    signal.throwIfAborted();
    const status = daemon.status();
    const isReady = await Promise.race([hasFirstByte(path), sleep(MOUNT_TIMEOUT_MS, false)]);
    if (isReady) return;
    if (status !== undefined && status !== 0) {
      throw new MountRefused(reasonIn(daemon.stderr()) || `mounting failed, exit status ${status}`);
    }
    if (performance.now() > end) throw new MountRefused('nothing to read after 20 s');
    await sleep(1);
  }
}

/** The peer's processes: the one started while it lives, and whoever has the image open. */
function processesOf(daemon: Daemon, imagePath: string): number[] {
  const started = daemon.status() === undefined ? [daemon.pid] : [];
  return [...new Set([...started, ...holdersOf(imagePath)])];
}

function stop(pid: number, name: NodeJS.Signals): void {
  try {
    if (isAlive(pid)) process.kill(pid, name);
  } catch {
    // ended in between
  }
}

async function unmountLazily(mountPoint: string): Promise<void> {
  // A daemon that hangs can be in the way of this one too: it is killed next.
  const signal = AbortSignal.timeout(RELEASE_TIMEOUT_MS);
  await run('umount', ['-l', mountPoint], { signal }).catch(() => '');
}

async function release(
  peer: Peer,
  daemon: Daemon,
  imagePath: string,
  mountPoint: string,
): Promise<void> {
  const pids = processesOf(daemon, imagePath);
  const hasEnded = (): boolean => pids.every((pid) => !isAlive(pid));
  if (isMounted(mountPoint)) {
    const { command, args } = peer.unmount?.(mountPoint) ?? {
      command: 'umount',
      args: [mountPoint],
    };
    const signal = AbortSignal.timeout(UNMOUNT_TIMEOUT_MS);
    await run(command, args, { signal }).catch(() => unmountLazily(mountPoint));
  }
  // qemu-storage-daemon outlives its mount; the others end with it.
  if (!peer.mountsOverFile) await waitFor(hasEnded, RELEASE_TIMEOUT_MS);
  for (const name of ['SIGTERM', 'SIGKILL'] as const) {
    for (const pid of pids) stop(pid, name);
    if (await waitFor(hasEnded, RELEASE_TIMEOUT_MS)) break;
  }
  if (isMounted(mountPoint)) await unmountLazily(mountPoint);
  rmSync(mountPoint, { recursive: !isMounted(mountPoint), force: true });
}

/** Mounts the image in a fresh mount point below `context.scratch`. */
export async function mountPeer(
  peer: Peer,
  image: Image,
  context: PeerContext,
  access: Access,
  signal: AbortSignal,
): Promise<Mount> {
  const imagePath = peer.readsRaw ? image.rawPath : image.path;
  if (!peer.launch) {
    return {
      diskPath: imagePath,
      firstByteMs: 0,
      residentBytes: () => 0,
      release: async () => {},
    };
  }
  const mountPoint = join(context.scratch, `mount-${peer.name}`);
  if (peer.mountsOverFile) writeFileSync(mountPoint, '');
  else mkdirSync(mountPoint, { recursive: true });
  const { command, args } = peer.launch(image, mountPoint, context, access);
  const diskPath = join(mountPoint, peer.diskName);
  const start = performance.now();
  const daemon = startDaemon(command, args);
  try {
    await waitForFirstByte(diskPath, daemon, signal);
  } catch (error) {
    await release(peer, daemon, imagePath, mountPoint);
    throw error;
  }
  return {
    diskPath,
    firstByteMs: performance.now() - start,
    residentBytes: () => residentBytes(processesOf(daemon, imagePath)),
    release: () => release(peer, daemon, imagePath, mountPoint),
  };
}

async function readExactly(handle: FileHandle, offset: number): Promise<Buffer> {
  const { buffer, bytesRead } = await handle.read(
    Buffer.alloc(SAMPLE_SIZE),
    0,
    SAMPLE_SIZE,
    offset,
  );
  return buffer.subarray(0, bytesRead);
}

/** Throws MountRefused where random samples of the mounted disk differ from a raw file. */
export async function verifyMount(mount: Mount, image: Image, rawPath: string): Promise<void> {
  const raw = await open(rawPath, 'r');
  let shown: FileHandle | undefined;
  try {
    shown = await open(mount.diskPath, 'r');
    const { size } = await shown.stat();
    if (size !== image.size) throw new MountRefused(`shows ${size} bytes of ${image.size}`);
    for (let sample = 0; sample < SAMPLE_COUNT; sample++) {
      const offset = randomInt(image.size / SAMPLE_SIZE) * SAMPLE_SIZE;
      const actual = await readExactly(shown, offset);
      if (!actual.equals(await readExactly(raw, offset))) {
        throw new MountRefused(`shows wrong data at ${offset}`);
      }
    }
  } catch (error) {
    if (error instanceof MountRefused) throw error;
    throw new MountRefused(`cannot be read: ${(error as Error).message}`);
  } finally {
    await shown?.close();
    await raw.close();
  }
}
