/** What a reader must know of the machine to compare numbers, and nothing that names it. */
import { cpus, release, totalmem } from 'node:os';
import { GIB } from './images.js';
import type { Peer } from './peers.js';
import { run } from './process.js';

export interface MachineFacts {
  cpu: string;
  cores: number;
  memoryGib: number;
  /** Version numbers alone: a kernel's suffix can name the place that built it. */
  kernel: string;
  node: string;
  fio: string;
  peers: Record<string, string>;
}

export async function machineFacts(peers: Peer[]): Promise<MachineFacts> {
  const versions: Record<string, string> = {};
  for (const peer of peers) versions[peer.name] = await peer.version().catch(() => 'unknown');
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGib: Math.round(totalmem() / GIB),
    kernel: /^[\d.]+/.exec(release())?.[0] ?? 'unknown',
    node: process.versions.node,
    fio: (await run('fio', ['--version'])).trim(),
    peers: versions,
  };
}
