/** `npm run bench`: this project beside its peers, in one interleaved run of fio. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type CommandSuite, commandSuites, isCommandSuite } from './command-suites.js';
import { commandTools, runCommandRounds } from './commands.js';
import { CLUSTER_SIZE, type Image, type ImageKind, type KeptKind, prepareImage } from './images.js';
import { type BenchOptions, parseOptions, select, usage } from './options.js';
import { type Peer, type PeerContext, peers } from './peers.js';
import { isInstalled } from './process.js';
import { saveRecord, type Versioned } from './record.js';
import { formatReport, formatSkips, judgeAll, type Skip, summarize } from './report.js';
import { type RoundsResult, runRounds } from './rounds.js';
import { type SuiteName, suites, type Target } from './workloads.js';

const log = (line: string): void => {
  process.stderr.write(`${line}\n`);
};

const print = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

/** The kept image that one of this kind is, or is made from. */
function keptKind(kind: ImageKind): KeptKind[] {
  if (kind === 'overlay') return ['plain'];
  return kind === 'empty' || kind === 'empty64g' ? [] : [kind];
}

async function prepareImages(
  directory: string,
  kinds: KeptKind[],
  size: number,
  signal: AbortSignal,
): Promise<Map<KeptKind, Image>> {
  const images = new Map<KeptKind, Image>();
  for (const kind of new Set(kinds)) {
    signal.throwIfAborted();
    log(`image ${kind}`);
    images.set(kind, await prepareImage(directory, kind, size));
  }
  return images;
}

/** Prints the tables and writes the record. */
async function publish(
  options: BenchOptions,
  targets: Target[],
  measuredPeers: readonly Versioned[],
  { samples, skips }: RoundsResult,
): Promise<void> {
  const summaries = summarize(samples);
  const verdicts = judgeAll(targets, summaries);
  if (samples.length > 0) {
    const names = measuredPeers.map(({ name }) => name);
    print(formatReport(summaries, verdicts, skips, names));
  } else {
    print(`nothing was measured\n${formatSkips(skips)}`);
  }
  if (!options.save) return;
  const path = await saveRecord(options, measuredPeers, { summaries, verdicts, skips, samples });
  log(`record: ${path}`);
}

/** Those that can run here; the reasons of the others go to `skips`. */
async function availablePeers(
  chosen: Peer[],
  context: PeerContext,
  skips: Skip[],
): Promise<Peer[]> {
  const available: Peer[] = [];
  for (const peer of chosen) {
    const reason = await peer.prepare(context);
    if (reason === undefined) available.push(peer);
    else skips.push({ peer: peer.name, workload: 'all', reason });
  }
  return available;
}

async function benchMounts(
  options: BenchOptions,
  suite: SuiteName,
  signal: AbortSignal,
): Promise<void> {
  const chosenPeers = select('peers', peers, options.peers).filter(
    ({ canWrite }) => canWrite || suite !== 'write',
  );
  const chosenWorkloads = select('workloads', suites[suite].workloads, options.workloads);
  if (!(await isInstalled('fio'))) throw new Error('fio is needed to measure');
  const scratch = mkdtempSync(join(tmpdir(), 'qcow2fs-bench-'));
  const imageDir = options.imageDir ? resolve(options.imageDir) : join(scratch, 'images');
  const stageDir = join(scratch, 'stage');
  const context: PeerContext = { workers: options.workers, scratch };
  const skips: Skip[] = [];
  try {
    const available = await availablePeers(chosenPeers, context, skips);
    const kinds = chosenWorkloads.flatMap(({ image }) => keptKind(image));
    const images = await prepareImages(imageDir, kinds, options.size, signal);
    const { rounds, seconds } = options;
    const result = await runRounds({
      peers: available,
      workloads: chosenWorkloads,
      images,
      stage: {
        directory: stageDir,
        size: options.size,
        plain: images.get('plain'),
      },
      scatteredWrites: options.size / CLUSTER_SIZE,
      context,
      rounds,
      seconds,
      signal,
      log,
    });
    const { targets } = suites[suite];
    await publish(options, targets, available, { ...result, skips: [...skips, ...result.skips] });
  } finally {
    rmSync(stageDir, { recursive: true, force: true });
    if (options.keep && !options.imageDir) log(`images: ${imageDir}`);
    else rmSync(scratch, { recursive: true, force: true });
  }
}

async function benchCommands(
  options: BenchOptions,
  { workloads, targets }: CommandSuite,
  signal: AbortSignal,
): Promise<void> {
  const chosen = select('workloads', workloads, options.workloads);
  const tools = select('peers', [...commandTools], options.peers);
  const scratch = mkdtempSync(join(tmpdir(), 'qcow2fs-bench-'));
  const imageDir = options.imageDir ? resolve(options.imageDir) : join(scratch, 'images');
  try {
    const kinds = chosen.map(({ image }) => image);
    const images = await prepareImages(imageDir, kinds, options.size, signal);
    const { rounds } = options;
    const input = { workloads: chosen, tools, images, scratch, rounds, signal, log };
    const samples = await runCommandRounds(input);
    await publish(options, targets, tools, { samples, skips: [] });
  } finally {
    if (options.keep && !options.imageDir) log(`images: ${imageDir}`);
    else rmSync(scratch, { recursive: true, force: true });
  }
}

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2));
  if (options.help) return print(usage);
  if (options.list) {
    print(`peers:\n${peers.map((peer) => `  ${peer.name}: ${peer.description}`).join('\n')}`);
    const all = { ...suites, ...commandSuites };
    for (const [suite, { workloads }] of Object.entries(all)) {
      print(`${suite} workloads:\n${workloads.map(({ name }) => `  ${name}`).join('\n')}`);
    }
    return;
  }
  const abort = new AbortController();
  // The run ends at its next step, and each finally on the way unmounts what it mounted.
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => abort.abort());
  const { suite } = options;
  if (isCommandSuite(suite)) await benchCommands(options, commandSuites[suite], abort.signal);
  else await benchMounts(options, suite, abort.signal);
}

main().catch((error: Error) => {
  const isInterrupted = error.name === 'AbortError';
  log(isInterrupted ? 'bench: interrupted, all unmounted' : `bench: ${error.message}`);
  process.exitCode = isInterrupted ? 130 : 1;
});
