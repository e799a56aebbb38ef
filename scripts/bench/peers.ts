/**
 * Who is measured. A peer knows which images it can show, the command that mounts one, and where
 * the disk appears below (or over) the mount point. This project is one of them.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Image, ImageKind } from './images.js';
import { isInstalled, run } from './process.js';

/** This file runs from build/scripts/bench. */
const projectRoot = fileURLToPath(new URL('../../../', import.meta.url));
const ourCommand = join(projectRoot, 'dist/cli/main.js');

export const OURS = 'qcow2fs';
export const LIMIT = 'c-limit';
export const QEMU = 'qemu-export';
export const HOST_FILE = 'host-file';

export interface Launch {
  command: string;
  args: string[];
}

export interface PeerContext {
  /** `-o workers=` for this project, its own default where undefined. */
  workers: number | undefined;
  /** A directory of this run, removed at its end. */
  scratch: string;
  /** The compiled pass-through, once `prepare` has run. */
  passthrough?: string;
}

export type Access = 'read' | 'write';

export interface Peer {
  name: string;
  description: string;
  /** Whether it reads the raw file instead of the qcow2 image. */
  readsRaw: boolean;
  /** Whether it takes part in writing. */
  canWrite: boolean;
  /** Whether it is mounted over a regular file instead of a directory. */
  mountsOverFile: boolean;
  /** Name of the disk below the mount point; '' where the mount point is the disk. */
  diskName: string;
  /** Why it cannot run here, or undefined. May build what it needs. */
  prepare(context: PeerContext): Promise<string | undefined>;
  /** Why it cannot show images of this kind, or undefined. */
  refuses(kind: ImageKind): string | undefined;
  /** The command that mounts; undefined for the host file, which needs none. */
  launch?(image: Image, mountPoint: string, context: PeerContext, access: Access): Launch;
  /** The command that unmounts, where it is not `umount`. */
  unmount?(mountPoint: string): Launch;
  /** Version, for the record. */
  version(): Promise<string>;
}

async function versionOf(command: string, ...args: string[]): Promise<string> {
  return (await run(command, args)).split('\n')[0]!.trim();
}

async function missing(...commands: string[]): Promise<string | undefined> {
  for (const command of commands) {
    if (!(await isInstalled(command))) return `${command} is not installed`;
  }
  return undefined;
}

const accepts = (): undefined => undefined;
const withoutKeys = (kind: ImageKind): string | undefined =>
  kind.startsWith('luks-') ? 'it is given no key' : undefined;

const ours: Peer = {
  name: OURS,
  description: 'this project',
  readsRaw: false,
  canWrite: true,
  mountsOverFile: false,
  diskName: 'disk.raw',
  prepare: async () => (existsSync(ourCommand) ? undefined : 'dist/cli/main.js is not built'),
  refuses: accepts,
  launch: (image, mountPoint, { workers }, access) => {
    const mode = access === 'write' ? 'rw' : 'ro';
    const given = workers === undefined ? mode : `${mode},workers=${workers}`;
    const options = image.keyPath === undefined ? given : `${given},key-file=${image.keyPath}`;
    return {
      command: process.execPath,
      args: [ourCommand, image.path, mountPoint, '-o', options],
    };
  },
  unmount: (mountPoint) => ({
    command: process.execPath,
    args: [ourCommand, 'umount', mountPoint],
  }),
  version: () => versionOf(process.execPath, ourCommand, '--version'),
};

async function compilePassthrough(context: PeerContext): Promise<string | undefined> {
  const reason = await missing('gcc', 'pkg-config');
  if (reason) return reason;
  try {
    const flags = (await run('pkg-config', ['--cflags', '--libs', 'fuse3'])).trim().split(/\s+/);
    const target = join(context.scratch, 'passthrough');
    const source = join(projectRoot, 'scripts/bench/passthrough.c');
    await run('gcc', ['-O2', '-o', target, source, ...flags]);
    context.passthrough = target;
    return undefined;
  } catch (error) {
    return `passthrough.c does not compile: ${(error as Error).message}`;
  }
}

const limit: Peer = {
  name: LIMIT,
  description: 'C, libfuse3 multi-threaded pass-through of the raw file',
  readsRaw: true,
  canWrite: true,
  mountsOverFile: false,
  diskName: 'disk.raw',
  prepare: compilePassthrough,
  refuses: (kind) => {
    if (kind === 'overlay') return 'the raw file has no backing file';
    return kind === 'zlib' || kind === 'zstd' ? 'the raw file is not compressed' : undefined;
  },
  launch: (image, mountPoint, { passthrough }, access) => ({
    command: passthrough!,
    args: [access === 'write' ? '-w' : '-f', image.rawPath, mountPoint],
  }),
  version: async () => `libfuse ${await versionOf('pkg-config', '--modversion', 'fuse3')}`,
};

const qemuExport: Peer = {
  name: QEMU,
  description: "qemu-storage-daemon's FUSE export",
  readsRaw: false,
  canWrite: true,
  mountsOverFile: true,
  diskName: '',
  prepare: () => missing('qemu-storage-daemon'),
  refuses: accepts,
  launch: (image, mountPoint, _context, access) => {
    const isReadOnly = access === 'write' ? 'off' : 'on';
    const key = image.keyPath === undefined ? '' : ',encrypt.format=luks,encrypt.key-secret=key';
    const rights = access === 'write' ? 'writable=on,growable=on' : 'writable=off';
    return {
      command: 'qemu-storage-daemon',
      args: [
        ...(image.keyPath === undefined ? [] : ['--object', `secret,id=key,file=${image.keyPath}`]),
        '--blockdev',
        `driver=file,node-name=file,filename=${image.path},read-only=${isReadOnly}`,
        '--blockdev',
        `driver=qcow2,node-name=disk,file=file,read-only=${isReadOnly}${key}`,
        '--export',
        `type=fuse,id=export,node-name=disk,mountpoint=${mountPoint},${rights}`,
      ],
    };
  },
  version: () => versionOf('qemu-storage-daemon', '--version'),
};

const qcowmount: Peer = {
  name: 'qcowmount',
  description: "libqcow's mount",
  readsRaw: false,
  canWrite: false,
  mountsOverFile: false,
  diskName: 'qcow1',
  prepare: () => missing('qcowmount'),
  refuses: withoutKeys,
  launch: (image, mountPoint) => ({ command: 'qcowmount', args: [image.path, mountPoint] }),
  version: () => versionOf('qcowmount', '-V'),
};

const nbdfuse: Peer = {
  name: 'nbdfuse',
  description: "libnbd's mount of qemu-nbd",
  readsRaw: false,
  canWrite: false,
  mountsOverFile: false,
  diskName: 'nbd',
  prepare: () => missing('nbdfuse', 'qemu-nbd'),
  refuses: withoutKeys,
  launch: (image, mountPoint) => ({
    command: 'nbdfuse',
    args: ['-r', mountPoint, '[', 'qemu-nbd', '-r', '-f', 'qcow2', image.path, ']'],
  }),
  version: () => versionOf('nbdfuse', '--version'),
};

const hostFile: Peer = {
  name: HOST_FILE,
  description: 'the raw file itself, in the page cache',
  readsRaw: true,
  canWrite: true,
  mountsOverFile: false,
  diskName: '',
  prepare: async () => undefined,
  refuses: accepts,
  version: async () => '',
};

/** In the order of the table. */
export const peers: Peer[] = [ours, limit, qemuExport, qcowmount, nbdfuse, hostFile];
