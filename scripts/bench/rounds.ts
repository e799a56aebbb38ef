/**
 * The interleaved run: each round visits every workload, and within it every peer, one at a time,
 * so that a slow minute of the machine touches all peers alike.
 */
import { runFio } from './fio.js';
import { GIB, type Image, type ImageKind, MIB, warmImage } from './images.js';
import { MountRefused, mountPeer, verifyMount } from './mount.js';
import { HOST_FILE, type Peer, type PeerContext } from './peers.js';
import { run } from './process.js';
import type { Sample, Skip } from './report.js';
import { type FioStep, unitOf, type Workload } from './workloads.js';

export interface RoundsInput {
  peers: Peer[];
  workloads: Workload[];
  images: Map<ImageKind, Image>;
  context: PeerContext;
  rounds: number;
  seconds: number;
  signal: AbortSignal;
  log(line: string): void;
}

export interface RoundsResult {
  samples: Sample[];
  skips: Skip[];
}

/** The steps of a workload that a peer takes; the host file is measured only where it is a target. */
function stepsFor(peer: Peer, workload: Workload): FioStep[] {
  return workload.steps.filter((step) => peer.name !== HOST_FILE || step.withHostFile);
}

function takesPart(peer: Peer, workload: Workload): boolean {
  return peer.name !== HOST_FILE || stepsFor(peer, workload).length > 0;
}

/**
 * Takes as much free memory as a page cache of `bytes` will need, and gives it back. In a virtual
 * machine the first use of a page costs a fault in the host, which the peer that happens to come
 * first would pay: a factor of three on a cold buffered read.
 */
async function touchMemory(bytes: number, signal: AbortSignal): Promise<void> {
  const args = ['if=/dev/zero', 'of=/dev/null', `bs=${Math.min(bytes, 2 * GIB)}`, 'count=1'];
  await run('dd', [...args, 'status=none'], { signal });
}

/** One workload on one fresh mount of one peer. */
async function measure(
  peer: Peer,
  workload: Workload,
  round: number,
  input: RoundsInput,
): Promise<Sample[]> {
  const { context, seconds, signal } = input;
  const image = input.images.get(workload.image)!;
  const samples: Sample[] = [];
  await warmImage(image, peer.readsRaw);
  if (workload.steps.some(({ job }) => !job.direct)) await touchMemory(image.size, signal);
  const mount = await mountPeer(peer, image, context, signal);
  try {
    const add = (metric: string, value: number, latencyP99Us?: number): void => {
      const latency = latencyP99Us === undefined ? {} : { latencyP99Us };
      samples.push({ metric, peer: peer.name, round, value, ...latency });
    };
    if (workload.firstByteMetric) add(workload.firstByteMetric, mount.firstByteMs);
    for (const { metric, job } of stepsFor(peer, workload)) {
      const result = await runFio(job, mount.diskPath, image.size, seconds, signal);
      const value = unitOf(metric) === 'IOPS' ? result.iops : result.bytesPerSecond / 1e6;
      add(metric, value, result.latencyP99Us);
    }
    if (workload.memoryMetric) add(workload.memoryMetric, mount.residentBytes() / MIB);
  } finally {
    await mount.release();
  }
  return samples;
}

/** Why the peer cannot take part with this image: mounts it once and compares samples of it. */
async function refusal(
  peer: Peer,
  image: Image,
  context: PeerContext,
  signal: AbortSignal,
): Promise<string | undefined> {
  const reason = peer.refuses(image.kind);
  if (reason || !peer.launch) return reason;
  try {
    const mount = await mountPeer(peer, image, context, signal);
    try {
      await verifyMount(mount, image);
    } finally {
      await mount.release();
    }
    return undefined;
  } catch (error) {
    if (error instanceof MountRefused) return error.message;
    throw error;
  }
}

/** Who takes part in what: every pair of peer and image is tried and checked before measuring. */
async function findRefusals(input: RoundsInput): Promise<Map<string, string>> {
  const refusals = new Map<string, string>();
  for (const image of input.images.values()) {
    for (const peer of input.peers) {
      const reason = await refusal(peer, image, input.context, input.signal);
      if (reason) refusals.set(`${peer.name} ${image.kind}`, reason);
    }
  }
  return refusals;
}

export async function runRounds(input: RoundsInput): Promise<RoundsResult> {
  const { peers, workloads, rounds, signal, log } = input;
  log('checking what each peer shows');
  const refusals = await findRefusals(input);
  const samples: Sample[] = [];
  const skips: Skip[] = [];
  for (let round = 0; round < rounds; round++) {
    log(`round ${round + 1} of ${rounds}`);
    for (const workload of workloads) {
      // Each round starts with another peer: none is always the one that runs after the pause.
      const turn = peers.map((_, index) => peers[(index + round) % peers.length]!);
      for (const peer of turn.filter((candidate) => takesPart(candidate, workload))) {
        signal.throwIfAborted();
        const reason = refusals.get(`${peer.name} ${workload.image}`);
        if (reason !== undefined) {
          if (round === 0) skips.push({ peer: peer.name, workload: workload.name, reason });
          continue;
        }
        try {
          const measured = await measure(peer, workload, round, input);
          samples.push(...measured);
          for (const { metric, value } of measured) {
            log(`  ${peer.name} ${metric} ${value.toFixed(1)} ${unitOf(metric)}`);
          }
        } catch (error) {
          signal.throwIfAborted();
          const failure = `failed in round ${round + 1}: ${(error as Error).message}`;
          skips.push({ peer: peer.name, workload: workload.name, reason: failure });
          log(`  ${peer.name} ${workload.name}: ${failure}`);
        }
      }
    }
  }
  return { samples, skips };
}
