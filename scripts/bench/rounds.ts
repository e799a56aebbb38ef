/**
 * The interleaved run: each round visits every workload, and within it every peer, one at a time,
 * so that a slow minute of the machine touches all peers alike.
 */
import { type MeasureInput, measure, refusal, takesPart } from './measure.js';
import type { Peer } from './peers.js';
import type { Sample, Skip } from './report.js';
import { unitOf, type Workload } from './workloads.js';

export interface RoundsInput extends MeasureInput {
  peers: Peer[];
  workloads: Workload[];
  rounds: number;
  log(line: string): void;
}

export interface RoundsResult {
  samples: Sample[];
  skips: Skip[];
}

/** Who takes part in what: every pair of peer and image is tried and checked before measuring. */
async function findRefusals(input: RoundsInput): Promise<Map<string, string>> {
  const refusals = new Map<string, string>();
  const tried = new Set<string>();
  for (const workload of input.workloads) {
    for (const peer of input.peers.filter((candidate) => takesPart(candidate, workload))) {
      const key = `${peer.name} ${workload.image}`;
      if (tried.has(key)) continue;
      tried.add(key);
      input.signal.throwIfAborted();
      const reason = await refusal(peer, workload, input);
      if (reason) refusals.set(key, reason);
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
