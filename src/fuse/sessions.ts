/** Who serves which of the kernel's nodes. */
import type { Operations } from '../mount/operations.js';
import type { Opcode } from './opcode.js';
import type { Request } from './request.js';

/** What serves some of the nodes. */
export interface Session {
  readonly operations: Operations;
  /** Makes the session's own node numbers those that the kernel knows, added to them. */
  readonly base: number;
  /** What its own node numbers are below. */
  readonly size: number;
}

/** All sessions of a mount, as one thread knows them. */
export interface Sessions {
  /**
   * The session that serves the request; it stays as it is until `leave`, which follows unless this
   * throws. Does not nest.
   */
  enter(opcode: Opcode, request: Request): Session;
  leave(): void;
  /** Within a session: so many files more of it are open. */
  countFiles(change: 1 | -1): void;
  /** The kernel is told of a node, by its number there: it will say when it has forgotten it. */
  countLookup(nodeid: number): void;
}

/** One that serves all nodes. */
export class SoleSession implements Sessions {
  readonly #session: Session;

  constructor(operations: Operations) {
    this.#session = { operations, base: 0, size: Number.POSITIVE_INFINITY };
  }

  enter(): Session {
    return this.#session;
  }

  leave(): void {}

  countFiles(): void {}

  countLookup(): void {}
}
