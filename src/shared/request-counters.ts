/**
 * What the workers of a mount have served, in shared memory: requests by opcode, how many failed, and how long
 * they took. Each worker has words of its own and adds to them without atomics; who reads adds up what all have.
 */

/** Opcodes that are told apart: those beyond count as the first one, which the protocol has not. */
const OPCODES = 64;

/** Latencies are counted by powers of two of this many nanoseconds. */
const UNIT_NS = 1024;

/** The last one has no limit. */
export const LATENCY_BUCKETS = 24;

/** The time below which a request is in that bucket or one before it. */
export function bucketLimitNs(bucket: number): number {
  return bucket === LATENCY_BUCKETS - 1 ? Number.POSITIVE_INFINITY : UNIT_NS * 2 ** bucket;
}

// Doubles of an opcode's record, behind its buckets. 32 in all: whole cache lines.
const ERRORS = LATENCY_BUCKETS;
const MILLISECONDS = LATENCY_BUCKETS + 1;
const RECORD = 32;

const NS_PER_MS = 1e6;

/** Of one opcode, over all workers. */
export interface RequestTotals {
  readonly count: number;
  readonly errors: number;
  readonly milliseconds: number;
  /** Requests by latency. */
  readonly buckets: readonly number[];
}

export function allocateRequestCounters(workers: number): SharedArrayBuffer {
  return new SharedArrayBuffer(workers * OPCODES * RECORD * 8);
}

export class RequestCounters {
  readonly #words: Float64Array;

  /** Those of worker `index`, from 0. */
  constructor(memory: SharedArrayBuffer, index: number) {
    const length = OPCODES * RECORD;
    this.#words = new Float64Array(memory, index * length * 8, length);
  }

  /** A request of that opcode was served. */
  count(opcode: number, milliseconds: number, failed: boolean): void {
    const words = this.#words;
    const at = recordOf(opcode);
    const units = (milliseconds * NS_PER_MS) / UNIT_NS;
    const bucket = Math.min(32 - Math.clz32(units), LATENCY_BUCKETS - 1);
    words[at + bucket]!++;
    words[at + MILLISECONDS]! += milliseconds;
    if (failed) words[at + ERRORS]!++;
  }
}

/** The totals of those opcodes that were served, by their codes. */
export function requestTotals(memory: SharedArrayBuffer): ReadonlyMap<number, RequestTotals> {
  const words = new Float64Array(memory);
  const totals = new Map<number, RequestTotals>();
  for (let opcode = 0; opcode < OPCODES; opcode++) {
    const record = new Float64Array(RECORD);
    for (let at = recordOf(opcode); at < words.length; at += OPCODES * RECORD) {
      for (let word = 0; word < RECORD; word++) record[word]! += words[at + word]!;
    }
    const buckets = [...record.subarray(0, LATENCY_BUCKETS)];
    const count = buckets.reduce((sum, one) => sum + one, 0);
    if (count === 0) continue;
    const [errors, milliseconds] = [record[ERRORS]!, record[MILLISECONDS]!];
    totals.set(opcode, { count, errors, milliseconds, buckets });
  }
  return totals;
}

function recordOf(opcode: number): number {
  return (opcode < OPCODES ? opcode : 0) * RECORD;
}
