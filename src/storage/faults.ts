/**
 * Errors on purpose, for tests of what a program does then: rules say at which events, and at which requests
 * behind them, a storage fails. As QEMU's driver `blkdebug` has them, with its words: an event makes the rules
 * that name it active, and from then on they fail every request that they are about; events move a state,
 * on which rules can depend.
 */
import { SysError } from '../errors.js';

/**
 * What happens in an image: `none` when it is opened; `read_aio` and `write_aio` before the guest's data is
 * read and written; the others before tables are.
 */
export const FAULT_EVENTS = [
  'none',
  'read_aio',
  'write_aio',
  'cor_write',
  'l1_update',
  'l2_load',
  'l2_update',
  'refblock_update',
  'reftable_update',
  'flush_to_disk',
] as const;
export type FaultEvent = (typeof FAULT_EVENTS)[number];

export const FAULT_REQUESTS = ['read', 'write', 'write-zeroes', 'discard', 'flush'] as const;
export type FaultRequest = (typeof FAULT_REQUESTS)[number];

export interface ErrorRule {
  readonly event: FaultEvent;
  /** Only in that state; 0 for any. */
  readonly state: number;
  readonly errno: number;
  /** Only requests that touch that sector of 512 bytes; null for all. */
  readonly sector: number | null;
  /** Only requests of that kind; null for all. */
  readonly request: FaultRequest | null;
  /** It fails one request, and is gone. */
  readonly once: boolean;
}

export interface StateRule {
  readonly event: FaultEvent;
  /** Only in that state; 0 for any. */
  readonly state: number;
  readonly newState: number;
}

/** Plain data and shared memory: what threads of one program have in common. */
export interface FaultPlan {
  readonly errors: readonly ErrorRule[];
  readonly states: readonly StateRule[];
  /** The state, and whether each rule is active. */
  readonly memory: SharedArrayBuffer;
}

const FIRST_STATE = 1;
const IDLE = 0;
const ACTIVE = 1;
const SPENT = 2;

export function faultPlan(errors: readonly ErrorRule[], states: readonly StateRule[]): FaultPlan {
  const memory = new SharedArrayBuffer((1 + errors.length) * 4);
  new Int32Array(memory)[0] = FIRST_STATE;
  const plan = { errors, states, memory };
  new Faults(plan).happens('none');
  return plan;
}

export class Faults {
  readonly #plan: FaultPlan;
  /** The state; behind it, what has become of each rule. */
  readonly #words: Int32Array;

  constructor(plan: FaultPlan) {
    this.#plan = plan;
    this.#words = new Int32Array(plan.memory);
  }

  happens(event: FaultEvent): void {
    const words = this.#words;
    const { errors, states } = this.#plan;
    const state = words[0]!;
    const isMeant = (rule: ErrorRule | StateRule) =>
      rule.event === event && (rule.state === 0 || rule.state === state);
    const meant = errors.map((rule, at) => isMeant(rule) && words[at + 1] !== SPENT);
    // Those of an event take the place of those of an earlier one.
    if (meant.includes(true)) {
      meant.forEach((active, at) => {
        if (words[at + 1] !== SPENT) words[at + 1] = active ? ACTIVE : IDLE;
      });
    }
    for (const rule of states) if (isMeant(rule)) words[0] = rule.newState;
  }

  /** Throws a SysError where an active rule is about the request; `position` and `length` in bytes. */
  check(request: FaultRequest, position: number, length: number): void {
    const words = this.#words;
    const { errors } = this.#plan;
    const at = errors.findIndex((rule, index) => {
      if (words[index + 1] !== ACTIVE) return false;
      if (rule.request !== null && rule.request !== request) return false;
      const from = rule.sector === null ? null : rule.sector * 512;
      return from === null || (from >= position && from < position + length);
    });
    if (at < 0) return;
    const { errno, once } = errors[at]!;
    if (once) words[at + 1] = SPENT;
    // A rule of errno 0 keeps later ones from the request.
    if (errno !== 0) throw new SysError(request, errno, 'fails on purpose');
  }
}
