/**
 * A worker thread: one blocking loop over /dev/fuse, from request to reply with no event loop
 * between. It ends when the mount does.
 */
// The global of that name is looked up by a getter, for each request anew.
import { performance } from 'node:perf_hooks';
import { parentPort, workerData } from 'node:worker_threads';
import { ERRNO } from '../errors.js';
import { prepareToAttach } from '../image/attach.js';
import { loadZstd } from '../image/qcow2/compression.js';
import { asking } from '../mount/collection-questions.js';
import { operationsOf, type ServedImage } from '../mount/served-image.js';
import { MountState } from '../shared/mount-state.js';
import { RequestCounters } from '../shared/request-counters.js';
import { ask, type QuestionLine } from '../shared/questions.js';
import { WorkerStatus } from '../shared/worker-status.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { type LogDescription, log, openLog } from '../sys/log.js';
import { readRequest, UNMOUNTED, writeReply } from './channel.js';
import { Dispatcher } from './dispatch.js';
import { MAX_READ } from './init.js';
import { MemberSessions, type MemberSessionsOptions } from './member-sessions.js';
import { invalidateNodes } from './notify.js';
import { PAYLOAD } from './reply.js';
import { type Sessions, SoleSession } from './sessions.js';

/** A mount of one image. */
export interface ServesOne {
  readonly image: ServedImage;
}

/** A mount of many. */
export interface ServesMany extends Pick<MemberSessionsOptions, 'facts' | 'members' | 'pid'> {
  readonly image?: undefined;
}

/** What a worker is given. */
export interface WorkerInput {
  readonly fd: number;
  /** From 0; its number as an owner of locks is one more. */
  readonly index: number;
  readonly serves: ServesOne | ServesMany;
  /** Of the `MountState` that tells of the mount's end. */
  readonly state: SharedArrayBuffer;
  readonly status: SharedArrayBuffer;
  /** Of `RequestCounters`. */
  readonly requests: SharedArrayBuffer;
  readonly log: LogDescription;
  readonly trace: boolean;
  readonly onlyUser?: number | undefined;
  /** To the main thread, in a mount of many images. */
  readonly line?: QuestionLine | undefined;
}

/** What a worker says: that it waits for requests, and that it has finished the first one. */
export type WorkerWord = 'ready' | 'served';

/** Requests come with a header and, if they write, with up to a READ's bytes of data. */
const REQUEST_SIZE = MAX_READ + 4096;

/** Builds what serves requests in this thread. */
export function serve(input: WorkerInput, sessions: Sessions): void {
  const { fd, trace, onlyUser } = input;
  openLog(input.log);
  const request = new IoBuffer(REQUEST_SIZE);
  const reply = new IoBuffer(PAYLOAD + MAX_READ);
  const dispatcher = new Dispatcher(sessions, request, reply, { log, trace, onlyUser });
  const status = new WorkerStatus(input.status, input.index);
  const counters = new RequestCounters(input.requests, input.index);
  const state = new MountState(input.state, input.index + 1);
  let served = false;
  for (;;) {
    const length = readRequest(fd, request);
    if (length === UNMOUNTED) break;
    const started = performance.now();
    status.begin(dispatcher.request.uniqueLow, dispatcher.request.uniqueHigh);
    // Asked behind `begin`: who stops the mount waits for those that began before.
    const size = state.stopped
      ? dispatcher.refuse(length, ERRNO.ENOTCONN)
      : dispatcher.dispatch(length);
    const refused = size === 0 ? null : writeReply(fd, reply, size);
    status.end();
    counters.count(dispatcher.request.opcode, performance.now() - started, dispatcher.failed);
    if (refused !== null) {
      dispatcher.logError(`the kernel refused a reply of ${size} bytes: ${refused}`);
    }
    const stale = dispatcher.takeStale();
    if (stale !== null) invalidateNodes(fd, stale);
    if (!served) parentPort!.postMessage('served' satisfies WorkerWord);
    served = true;
  }
  dispatcher.end();
}

/** Who serves what `input` describes. `makeOperations`: in tests. */
export async function sessionsOf(
  { serves, status, index, line }: WorkerInput,
  makeOperations = operationsOf,
): Promise<Sessions> {
  const owner = index + 1;
  if (serves.image !== undefined) {
    await prepareToAttach(serves.image.description);
    return new SoleSession(makeOperations(serves.image, owner));
  }
  // Later there is no waiting for it.
  await loadZstd();
  return new MemberSessions({
    ...serves,
    owner,
    makeOperations,
    status: new WorkerStatus(status, index),
    questions: asking((question) => ask(line!, question)),
  });
}

/** A worker's whole life. */
export async function runWorker(): Promise<void> {
  const input = workerData as WorkerInput;
  const sessions = await sessionsOf(input);
  parentPort!.postMessage('ready' satisfies WorkerWord);
  serve(input, sessions);
}
