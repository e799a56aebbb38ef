/** Bitmaps as QEMU reads them. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { processStart } from '#src/sys/process.js';
import { qemuImg } from './qemu.js';

/** What a bitmap says is dirty: start and length, bytes. */
export type DirtyExtent = readonly [start: number, length: number];

let servers = 0;

/** Asks qemu-nbd, through which QEMU shows a bitmap as a map: what is not data is dirty. */
export function qemuDirty(path: string, name: string): DirtyExtent[] {
  // One that ends takes its socket's name with it.
  const socket = `${path}.${servers++}.sock`;
  const pidFile = `${socket}.pid`;
  const words = ['-r', '-f', 'qcow2', '-B', name, '-k', socket, '--fork'];
  words.push(`--pid-file=${pidFile}`, path);
  const started = spawnSync('qemu-nbd', words, { encoding: 'utf8', timeout: 60_000 });
  if (started.status !== 0) throw new Error(`qemu-nbd: ${started.stderr}`);
  const pid = Number(readFileSync(pidFile, 'utf8'));
  const start = processStart(pid);
  let map: string;
  try {
    const options = `driver=nbd,server.type=unix,server.path=${socket}`;
    map = qemuImg(
      ...['map', '--output=json', '--image-opts'],
      `${options},x-dirty-bitmap=qemu:dirty-bitmap:${name}`,
    );
  } finally {
    endServer(pid, start);
  }
  const extents = JSON.parse(map) as { start: number; length: number; data: boolean }[];
  return extents.filter(({ data }) => !data).map(({ start, length }) => [start, length] as const);
}

/** Until it has ended, it has the image's lock. */
function endServer(pid: number, start: number | undefined): void {
  try {
    process.kill(pid);
  } catch {
    // Its only client is gone: it has ended by itself.
  }
  while (start !== undefined && processStart(pid) === start) spawnSync('sleep', ['0.01']);
}

export interface ListedBitmap {
  readonly name: string;
  readonly granularity: number;
  readonly flags: readonly string[];
}

export function qemuBitmaps(path: string): ListedBitmap[] {
  const info = JSON.parse(qemuImg('info', '--output=json', path));
  return info['format-specific'].data.bitmaps ?? [];
}
