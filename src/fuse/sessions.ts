/** Who serves which of the kernel's nodes. */
import type { Operations } from '../mount/operations.js';
import type { Opcode } from './opcode.js';
import type { Request } from './request.js';

/** What serves some of the nodes. */
export interface Session {
  readonly operations: Operations;
  /** Makes the session's own node numbers those that the kernel knows, added to them. */
  readonly base: number;
}

/** All sessions of a mount, as one thread knows them. */
export interface Sessions {
  /**
   * The session that serves the request; it stays as it is until `leave`, which follows unless this
   * throws. Does not nest.
   */
  enter(opcode: Opcode, request: Request): Session;
  leave(): void;
}

/** One that serves all nodes. */
export class SoleSession implements Sessions {
  readonly #session: Session;

  constructor(operations: Operations) {
    this.#session = { operations, base: 0 };
  }

  enter(): Session {
    return this.#session;
  }

  leave(): void {}
}
