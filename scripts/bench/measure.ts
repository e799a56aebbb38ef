/** One workload on one mount of one peer, and whether the peer can take part in it at all. */
import { runFio } from './fio.js';
import { type Image, type KeptKind, MIB, warmImage } from './images.js';
import { type Mount, MountRefused, mountPeer, verifyMount } from './mount.js';
import { touchMemory } from './memory.js';
import { HOST_FILE, type Peer, type PeerContext } from './peers.js';
import { run } from './process.js';
import type { Sample } from './report.js';
import { measureTree } from './tree.js';
import { type Step, unitOf, type Workload } from './workloads.js';
import {
  checkWritable,
  createWritable,
  removeWritable,
  type Stage,
  verifyProbes,
  writeProbes,
} from './writable.js';

/** A step that takes longer hangs: the peer fails, and the run goes on. */
const STEP_LIMIT_MS = 180_000;

export interface MeasureInput {
  images: Map<KeptKind, Image>;
  stage: Stage;
  /** Number of scattered writes in a job of them. */
  scatteredWrites: number;
  context: PeerContext;
  seconds: number;
  signal: AbortSignal;
}

/** The steps of a workload that a peer takes; the host file is measured only where it is a target. */
function stepsFor(peer: Peer, workload: Workload): Step[] {
  return workload.steps.filter((step) => peer.name !== HOST_FILE || step.withHostFile);
}

export function takesPart(peer: Peer, workload: Workload): boolean {
  return peer.name !== HOST_FILE || stepsFor(peer, workload).length > 0;
}

interface StepResult {
  /** In the metric's unit. */
  value: number;
  latencyP99Us?: number;
}

/** Calls with a signal that fires with the outer one, or at the limit. */
async function withLimit<T>(outer: AbortSignal, call: (signal: AbortSignal) => Promise<T>) {
  // AbortSignal.any() would do, but Node.js 20 may collect what it depends on before it fires.
  const limit = new AbortController();
  const abort = (): void => limit.abort();
  const timer = setTimeout(abort, STEP_LIMIT_MS);
  outer.addEventListener('abort', abort);
  try {
    return await call(limit.signal);
  } catch (error) {
    outer.throwIfAborted();
    if (!limit.signal.aborted) throw error;
    throw new Error(`not done after ${STEP_LIMIT_MS / 1000} s`);
  } finally {
    clearTimeout(timer);
    outer.removeEventListener('abort', abort);
  }
}

async function takeStep(
  step: Step,
  mount: Mount,
  image: Image,
  input: MeasureInput,
  signal: AbortSignal,
): Promise<StepResult> {
  const { context, scatteredWrites, seconds } = input;
  const target = { path: mount.diskPath, size: image.size, scratch: context.scratch };
  if (!('job' in step)) return { value: (await measureTree({ ...target, signal })) / 1e6 };
  const result = await runFio(step.job, { ...target, scatteredWrites }, seconds, signal);
  const value = unitOf(step.metric) === 'IOPS' ? result.iops : result.bytesPerSecond / 1e6;
  return { value, latencyP99Us: result.latencyP99Us };
}

async function measureOn(
  image: Image,
  peer: Peer,
  workload: Workload,
  round: number,
  input: MeasureInput,
): Promise<Sample[]> {
  const samples: Sample[] = [];
  const access = workload.writes ? 'write' : 'read';
  const mount = await mountPeer(peer, image, input.context, access, input.signal);
  try {
    const add = (metric: string, result: StepResult): void => {
      samples.push({ metric, peer: peer.name, round, ...result });
    };
    if (workload.firstByteMetric) add(workload.firstByteMetric, { value: mount.firstByteMs });
    for (const step of stepsFor(peer, workload)) {
      const result = await withLimit(input.signal, (signal) =>
        takeStep(step, mount, image, input, signal),
      );
      add(step.metric, result);
    }
    if (workload.memoryMetric) {
      add(workload.memoryMetric, { value: mount.residentBytes() / MIB });
    }
  } finally {
    await mount.release();
  }
  return samples;
}

async function measureReading(
  peer: Peer,
  workload: Workload,
  round: number,
  input: MeasureInput,
): Promise<Sample[]> {
  const image = input.images.get(workload.image as KeptKind)!;
  await warmImage(image, peer.readsRaw);
  const isBuffered = workload.steps.some((step) => 'job' in step && !step.job.direct);
  if (isBuffered) await touchMemory(image.size, input.signal);
  return measureOn(image, peer, workload, round, input);
}

/** On a new image, or on the run's copy, which is left clean: nothing to write back, no errors. */
async function measureWriting(
  peer: Peer,
  workload: Workload,
  round: number,
  input: MeasureInput,
): Promise<Sample[]> {
  const { stage, signal } = input;
  const name = `${workload.writes}-${workload.image}`;
  const written = await createWritable(workload.image, stage, peer.readsRaw, name);
  let isKept = false;
  try {
    if (workload.writes === 'copy') await warmImage(written.image, peer.readsRaw);
    else await touchMemory(stage.size, signal);
    if (workload.image === 'overlay' && stage.plain) await warmImage(stage.plain, false);
    const samples = await measureOn(written.image, peer, workload, round, input);
    await checkWritable(written);
    if (workload.writes === 'copy') await run('sync', ['-d', written.filePath]);
    isKept = workload.writes === 'copy';
    return samples;
  } finally {
    if (!isKept) removeWritable(written);
  }
}

/** All numbers of one workload in one round for one peer. */
export function measure(
  peer: Peer,
  workload: Workload,
  round: number,
  input: MeasureInput,
): Promise<Sample[]> {
  const measureIt = workload.writes ? measureWriting : measureReading;
  return measureIt(peer, workload, round, input);
}

async function tryReading(peer: Peer, image: Image, input: MeasureInput): Promise<void> {
  const mount = await mountPeer(peer, image, input.context, 'read', input.signal);
  try {
    await verifyMount(mount, image, image.rawPath);
  } finally {
    await mount.release();
  }
}

async function tryWriting(peer: Peer, workload: Workload, input: MeasureInput): Promise<void> {
  const { context, signal, stage } = input;
  const written = await createWritable(workload.image, stage, peer.readsRaw, 'probe');
  try {
    const mount = await mountPeer(peer, written.image, context, 'write', signal);
    let probes: Awaited<ReturnType<typeof writeProbes>>;
    try {
      await verifyMount(mount, written.image, written.referencePath);
      probes = await writeProbes(mount, written.image.size);
    } finally {
      await mount.release();
    }
    await verifyProbes(written, probes);
  } finally {
    removeWritable(written);
  }
}

/** Why the peer cannot take part with the workload's image: mounts one and compares samples. */
export async function refusal(
  peer: Peer,
  workload: Workload,
  input: MeasureInput,
): Promise<string | undefined> {
  const reason = peer.refuses(workload.image);
  if (reason || !peer.launch) return reason;
  try {
    if (workload.writes) await tryWriting(peer, workload, input);
    else await tryReading(peer, input.images.get(workload.image as KeptKind)!, input);
    return undefined;
  } catch (error) {
    if (error instanceof MountRefused) return error.message;
    throw error;
  }
}
