/**
 * A worker thread: one blocking loop over /dev/fuse, from request to reply with no event loop
 * between. It ends when the mount does.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { ERRNO } from '../errors.js';
import { AttachedImage, prepareToAttach } from '../image/attach.js';
import type { ImageDescription } from '../image/description.js';
import type { ImageMemory } from '../image/memory.js';
import { Changes } from '../mount/changes.js';
import type { MountFacts } from '../mount/facts.js';
import { OpenFiles, type OpenFilesMemory } from '../mount/open-files.js';
import { Operations } from '../mount/operations.js';
import { Tree } from '../mount/tree.js';
import { MountState } from '../shared/mount-state.js';
import { RequestCounters } from '../shared/request-counters.js';
import { WorkerStatus } from '../shared/worker-status.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { type LogDescription, log, openLog } from '../sys/log.js';
import { readRequest, UNMOUNTED, writeReply } from './channel.js';
import { Dispatcher } from './dispatch.js';
import { MAX_READ } from './init.js';
import { invalidateNodes } from './notify.js';
import { PAYLOAD } from './reply.js';

/** What a worker is given: plain data and shared memory. */
export interface WorkerInput {
  readonly fd: number;
  /** From 0; its number as an owner of locks is one more. */
  readonly index: number;
  readonly image: ImageDescription;
  readonly memory: ImageMemory;
  readonly files: OpenFilesMemory;
  /** Of a `MountState`. */
  readonly state: SharedArrayBuffer;
  readonly status: SharedArrayBuffer;
  readonly facts: MountFacts;
  readonly log: LogDescription;
  readonly trace: boolean;
  readonly onlyUser?: number | undefined;
}

/** What a worker says: that it waits for requests, and that it has finished the first one. */
export type WorkerWord = 'ready' | 'served';

/** Requests come with a header and, if they write, with up to a READ's bytes of data. */
const REQUEST_SIZE = MAX_READ + 4096;

/** Builds what serves requests in this thread. */
export function serve(input: WorkerInput, operations: Operations): void {
  const { fd, trace, onlyUser } = input;
  openLog(input.log);
  const request = new IoBuffer(REQUEST_SIZE);
  const reply = new IoBuffer(PAYLOAD + MAX_READ);
  const dispatcher = new Dispatcher(operations, request, reply, { log, trace, onlyUser });
  const status = new WorkerStatus(input.status, input.index);
  const counters = new RequestCounters(input.facts.status.requests, input.index);
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

/** The operations of the mount that `input` describes. */
export function operationsOf(input: WorkerInput): Operations {
  const owner = input.index + 1;
  const image = new AttachedImage(input.image, input.memory, owner);
  const { writer, disk } = image;
  if (writer === null) return new Operations(new Tree(image, input.facts));
  const files = new OpenFiles(input.files, disk, owner);
  const tree = new Tree(image, input.facts, files.windows);
  const state = new MountState(input.state, owner);
  return new Operations(tree, new Changes({ tree, disk, writer, files, state }));
}

/** A worker's whole life. */
export async function runWorker(): Promise<void> {
  const input = workerData as WorkerInput;
  await prepareToAttach(input.image);
  const operations = operationsOf(input);
  parentPort!.postMessage('ready' satisfies WorkerWord);
  serve(input, operations);
}
