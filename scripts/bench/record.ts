/**
 * The JSON record of a run: every sample, and what a reader must know of the machine to compare
 * numbers, with nothing that names it (no host name, no path).
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { GIB } from './images.js';
import type { BenchOptions } from './options.js';
import type { Peer } from './peers.js';
import { run } from './process.js';
import type { Sample, Skip, Summary, Verdict } from './report.js';

interface MachineFacts {
  cpu: string;
  cores: number;
  memoryGib: number;
  /** Version numbers alone: a kernel's suffix can name the place that built it. */
  kernel: string;
  node: string;
  fio: string;
  peers: Record<string, string>;
}

async function machineFacts(peers: readonly Versioned[]): Promise<MachineFacts> {
  const versions: Record<string, string> = {};
  for (const peer of peers) versions[peer.name] = await peer.version().catch(() => 'unknown');
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGib: Math.round(totalmem() / GIB),
    kernel: /^[\d.]+/.exec(release())?.[0] ?? 'unknown',
    node: process.versions.node,
    fio: (await run('fio', ['--version']).catch(() => 'none')).trim(),
    peers: versions,
  };
}

/** What was measured, by name. */
export type Versioned = Pick<Peer, 'name' | 'version'>;

export interface Results {
  summaries: Summary[];
  verdicts: Verdict[];
  skips: Skip[];
  /** All rounds. */
  samples: Sample[];
}

/** This file runs from build/scripts/bench; records lie beside its source. */
function recordPath({ out, name }: BenchOptions): string {
  if (out !== undefined) return resolve(out);
  const results = fileURLToPath(new URL('../../../scripts/bench/results/', import.meta.url));
  return join(results, `${new Date().toISOString().slice(0, 10)}-${name}.json`);
}

/** Writes the record and returns where. */
export async function saveRecord(
  options: BenchOptions,
  peers: readonly Versioned[],
  results: Results,
): Promise<string> {
  const { suite, rounds, seconds, size, workers } = options;
  const record = {
    date: new Date().toISOString(),
    machine: await machineFacts(peers),
    settings: { suite, rounds, seconds, sizeBytes: size, workers: workers ?? 'default' },
    ...results,
  };
  const path = recordPath(options);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(record, null, 1)}\n`);
  return path;
}
