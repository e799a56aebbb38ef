/**
 * Sessions of a mount of many images, in one worker: one for the folders, and one for each image that this
 * thread has attached, which is dropped when it was closed.
 */
import { ERRNO, errnoOf, ImageError } from '../errors.js';
import type { CollectionQuestions, OpenMember } from '../mount/collection-questions.js';
import { type CollectionFacts, CollectionTree } from '../mount/collection-tree.js';
import { isMemberRoot, MEMBER_SIZE, memberOf } from '../mount/member-ids.js';
import { Operations } from '../mount/operations.js';
import { operationsOf } from '../mount/served-image.js';
import { XATTR_PREFIX } from '../mount/xattrs.js';
import { isOpenState, Members } from '../shared/members.js';
import type { WorkerStatus } from '../shared/worker-status.js';
import { BATCH_FORGET_IN, FORGET_IN, GETXATTR_IN, IN_HEADER } from './abi.js';
import type { Opcode } from './opcode.js';
import { BATCH_FORGET, FORGET, GETXATTR, LISTXATTR } from './opcodes.js';
import type { Request } from './request.js';
import type { Session, Sessions } from './sessions.js';

/** How long an image's last file may still be open that a program has just closed. Milliseconds. */
const PATIENCE_MS = 200;
const PAUSE_MS = 5;

/** fuse_forget_one: the node's number, and how often it is forgotten. */
const FORGET_ONE_SIZE = 16;

export interface MemberSessionsOptions {
  readonly facts: CollectionFacts;
  /** Of `Members`. */
  readonly members: SharedArrayBuffer;
  readonly status: WorkerStatus;
  readonly questions: CollectionQuestions;
  /** This thread's number, from 1. */
  readonly owner: number;
  /** Of the main thread: it must not wait for itself. */
  readonly pid: number;
  readonly makeOperations?: typeof operationsOf;
}

interface Attached extends Session {
  readonly state: number;
}

export class MemberSessions implements Sessions {
  readonly #options: MemberSessionsOptions;
  readonly #members: Members;
  readonly #folders: Session;
  readonly #attached = new Map<number, Attached>();
  #closings = 0;
  /** The image that is used now; 0 for none. */
  #member = 0;

  constructor(options: MemberSessionsOptions) {
    this.#options = options;
    this.#members = new Members(options.members);
    const tree = new CollectionTree(options.facts, options.questions);
    const size = Number.POSITIVE_INFINITY;
    this.#folders = { operations: new Operations(tree), base: 0, size };
  }

  enter(opcode: Opcode, request: Request): Session {
    if (!opcode.answered) {
      this.#forget(opcode, request);
      return this.#folders;
    }
    if (request.pid === this.#options.pid) {
      throw new ImageError('policy', 'EDEADLK', 'the mount does not look into itself');
    }
    const id = request.kernelNodeid;
    if (id < MEMBER_SIZE) return this.#folders;
    if (!isMemberRoot(id)) return this.#enter(memberOf(id));
    if (isOfFolder(opcode, request)) return this.#folders;
    try {
      return this.#enter(memberOf(id));
    } catch (error) {
      // What cannot be opened can be looked at from outside: `ls -l` asks for these, too.
      if (opcode === LISTXATTR) return this.#folders;
      throw error;
    }
  }

  leave(): void {
    if (this.#member === 0) return;
    this.#member = 0;
    this.#options.status.leave();
  }

  countFiles(change: 1 | -1): void {
    if (this.#member === 0) return;
    this.#members.addFiles(this.#member, change);
    if (change === 1) this.#options.status.counted = this.#member;
  }

  countLookup(nodeid: number): void {
    const member = memberOf(nodeid);
    if (member > 0) this.#members.addLookups(member, 1);
  }

  #enter(member: number): Session {
    const { status } = this.#options;
    const members = this.#members;
    let answer: OpenMember | undefined;
    for (;;) {
      // In this order: `Members` tells why.
      status.enter(member);
      const state = members.state(member);
      if (isOpenState(state)) {
        const attached = this.#attach(member, state, answer);
        if (attached !== undefined) {
          this.#member = member;
          members.use(member);
          return attached;
        }
      }
      status.leave();
      this.#dropClosed();
      answer = this.#open(member);
    }
  }

  /** Within the image, which stays open meanwhile; undefined where that one is not known here yet. */
  #attach(member: number, state: number, answer: OpenMember | undefined): Attached | undefined {
    const known = this.#attached.get(member);
    if (known?.state === state) return known;
    // It may have been closed behind the answer: its descriptors are others' then.
    if (answer?.state !== state) return undefined;
    const { makeOperations = operationsOf, owner, status } = this.#options;
    try {
      const operations = makeOperations(answer.image, owner);
      const attached = { operations, base: member * MEMBER_SIZE, size: MEMBER_SIZE, state };
      this.#attached.set(member, attached);
      return attached;
    } catch (error) {
      status.leave();
      throw error;
    }
  }

  /** Where all are in use, one may be about to be closed. */
  #open(member: number): OpenMember {
    const end = performance.now() + PATIENCE_MS;
    for (;;) {
      try {
        return this.#options.questions.open(member);
      } catch (error) {
        if (errnoOf(error) !== ERRNO.ENFILE || performance.now() > end) throw error;
        this.#members.pause(PAUSE_MS);
      }
    }
  }

  #dropClosed(): void {
    const { closings } = this.#members;
    if (closings === this.#closings) return;
    this.#closings = closings;
    for (const [member, { state }] of this.#attached) {
      if (this.#members.state(member) !== state) this.#attached.delete(member);
    }
  }

  #forget(opcode: Opcode, request: Request): void {
    if (opcode === FORGET) {
      const { nlookup } = request.read(FORGET_IN);
      this.#forgetOne(request.kernelNodeid, nlookup);
    } else if (opcode === BATCH_FORGET) {
      const { count } = request.read(BATCH_FORGET_IN);
      const room = (request.length - IN_HEADER.size - BATCH_FORGET_IN.size) / FORGET_ONE_SIZE;
      for (let index = 0; index < Math.min(count, room); index++) {
        const at = BATCH_FORGET_IN.size + index * FORGET_ONE_SIZE;
        this.#forgetOne(request.u64(at), request.u64(at + 8));
      }
    }
  }

  #forgetOne(nodeid: number, times: number): void {
    const member = memberOf(nodeid);
    if (member > 0) this.#members.addLookups(member, -times);
  }
}

/** Whether a request for the root of an image is about the folder alone: no image is opened for that. */
function isOfFolder(opcode: Opcode, request: Request): boolean {
  if (opcode !== GETXATTR) return opcode.ofFolder;
  return !request.text(GETXATTR_IN.size).startsWith(XATTR_PREFIX);
}
