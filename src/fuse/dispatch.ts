/**
 * From the bytes of a request to the bytes of its reply, by the opcode table. No kernel is needed
 * for it: tests feed it bytes. Nothing that a handler does wrong gets past it but as an errno.
 */
import { ERRNO, errnoOf, errorFacts } from '../errors.js';
import type { IoBuffer } from '../sys/io-buffer.js';
import type { LogFacts } from '../sys/log.js';
import { IN_HEADER, OUT_HEADER } from './abi.js';
import type { Opcode } from './opcode.js';
import { OPCODES } from './opcodes.js';
import { Reply } from './reply.js';
import { Request } from './request.js';
import type { Session, Sessions } from './sessions.js';
import { LineThrottle, textForLog } from './throttle.js';
import { traceLine } from './trace.js';

export interface DispatchLog {
  error(message: string, facts?: LogFacts): void;
  debug(message: string, facts?: LogFacts): void;
}

export interface DispatchOptions {
  readonly log: DispatchLog;
  /** Trace each request. */
  readonly trace?: boolean;
  /** Only root and this user may (`allow_root`). */
  readonly onlyUser?: number | undefined;
  /** The time in milliseconds, for the limit of the log. */
  readonly now?: () => number;
}

const TABLE: readonly (Opcode | undefined)[] = (() => {
  const table: (Opcode | undefined)[] = [];
  for (const opcode of OPCODES) table[opcode.code] = opcode;
  return table;
})();

export class Dispatcher {
  readonly request: Request;
  readonly #reply: Reply;
  readonly #sessions: Sessions;
  #stale: readonly number[] | null = null;
  readonly #options: DispatchOptions;
  readonly #errors: LineThrottle;
  /** Whether the last request was answered by an error. */
  failed = false;

  /** Requests lie in `requestBuffer`, replies are laid in `replyBuffer`. */
  constructor(
    sessions: Sessions,
    requestBuffer: IoBuffer,
    replyBuffer: IoBuffer,
    options: DispatchOptions,
  ) {
    this.request = new Request(requestBuffer);
    this.#reply = new Reply(replyBuffer);
    this.#sessions = sessions;
    this.#options = options;
    this.#errors = new LineThrottle((line, facts) => options.log.error(line, facts), options.now);
  }

  /**
   * Serves the request of `length` bytes that lies in the request buffer. Answers how many bytes of
   * the reply buffer go to the kernel: 0 where no answer is due.
   */
  dispatch(length: number): number {
    const { request } = this;
    const started = this.#options.trace === true ? performance.now() : 0;
    request.length = length;
    this.#reply.length = 0;
    const opcode = TABLE[request.opcode];
    const error = this.#serve(opcode);
    this.failed = error !== 0;
    if (error !== 0) this.#reply.length = 0;
    if (this.#options.trace === true) {
      const ms = performance.now() - started;
      this.#options.log.debug(traceLine(opcode, request, error, this.#reply.length, ms));
    }
    this.#errors.tick();
    if (opcode?.answered === false) return 0;
    return this.#finish(error);
  }

  /** Answers the request of `length` bytes with an errno, unserved. As `dispatch`. */
  refuse(length: number, errno: number): number {
    this.request.length = length;
    this.#reply.length = 0;
    this.failed = true;
    return TABLE[this.request.opcode]?.answered === false ? 0 : this.#finish(errno);
  }

  #serve(opcode: Opcode | undefined): number {
    const { request } = this;
    if (opcode === undefined) return ERRNO.ENOSYS;
    const named = opcode.named ? 1 : 0;
    if (request.length < IN_HEADER.size + (opcode.layout?.size ?? 0) + named) return ERRNO.EINVAL;
    const { onlyUser } = this.#options;
    if (onlyUser !== undefined && !opcode.byHandle) {
      if (request.uid !== 0 && request.uid !== onlyUser) return ERRNO.EACCES;
    }
    try {
      const session = this.#sessions.enter(opcode, request);
      try {
        this.#serveIn(session, opcode);
        if (opcode.files !== 0) this.#sessions.countFiles(opcode.files);
        for (const nodeid of this.#reply.entered) this.#sessions.countLookup(nodeid);
      } finally {
        this.#sessions.leave();
      }
      return 0;
    } catch (error) {
      this.#report(opcode, error);
      return errnoOf(error);
    }
  }

  #serveIn({ operations, base, size }: Session, opcode: Opcode): void {
    this.request.base = base;
    this.#reply.begin(base, size);
    if (opcode.looks) {
      operations.enter();
      try {
        opcode.serve(operations, this.request, this.#reply);
      } finally {
        operations.leave();
      }
      return;
    }
    opcode.serve(operations, this.request, this.#reply);
    const stale = operations.changes?.snapshots.takeStale();
    if (stale) this.#stale = stale.map((id) => base + id);
  }

  /** Nodes that the kernel is to forget, now that the request is answered; null for none. */
  takeStale(): readonly number[] | null {
    const stale = this.#stale;
    this.#stale = null;
    return stale;
  }

  #report(opcode: Opcode, error: unknown): void {
    const text = textForLog(error);
    if (text === null) return;
    const node = this.request.kernelNodeid;
    const facts = { request: opcode.name, node, ...errorFacts(error) };
    this.logError(`${opcode.name} node ${node}: ${text}`, facts);
  }

  /** Into the log, as far as that is not flooded. */
  logError(line: string, facts?: LogFacts): void {
    this.#errors.put(line, facts);
  }

  /** There will be no more requests. */
  end(): void {
    this.#errors.flush();
  }

  #finish(error: number): number {
    const { view, length } = this.#reply;
    const size = OUT_HEADER.size + length;
    view.setUint32(OUT_HEADER.offsets.len, size, true);
    view.setInt32(OUT_HEADER.offsets.error, -error, true);
    view.setUint32(OUT_HEADER.offsets.unique, this.request.uniqueLow, true);
    view.setUint32(OUT_HEADER.offsets.unique + 4, this.request.uniqueHigh, true);
    return size;
  }
}
