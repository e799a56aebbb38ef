/**
 * A worker thread: one blocking loop over /dev/fuse, from request to reply with no event loop
 * between. It ends when the mount does.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { AttachedImage, prepareToAttach } from '../image/attach.js';
import type { ImageDescription } from '../image/description.js';
import type { ImageMemory } from '../image/memory.js';
import type { MountFacts } from '../mount/facts.js';
import { Operations } from '../mount/operations.js';
import { Tree } from '../mount/tree.js';
import { WorkerStatus } from '../shared/worker-status.js';
import { IoBuffer } from '../sys/io-buffer.js';
import { type LogDescription, log, openLog } from '../sys/log.js';
import { readRequest, UNMOUNTED, writeReply } from './channel.js';
import { Dispatcher } from './dispatch.js';
import { MAX_READ } from './init.js';
import { PAYLOAD } from './reply.js';

/** What a worker is given: plain data and shared memory. */
export interface WorkerInput {
  readonly fd: number;
  /** From 0; its number as an owner of locks is one more. */
  readonly index: number;
  readonly image: ImageDescription;
  readonly memory: ImageMemory;
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
  let served = false;
  for (;;) {
    const length = readRequest(fd, request);
    if (length === UNMOUNTED) break;
    status.begin(dispatcher.request.uniqueLow, dispatcher.request.uniqueHigh);
    const size = dispatcher.dispatch(length);
    const refused = size === 0 ? null : writeReply(fd, reply, size);
    status.end();
    if (refused !== null) {
      dispatcher.logError(`the kernel refused a reply of ${size} bytes: ${refused}`);
    }
    if (!served) parentPort!.postMessage('served' satisfies WorkerWord);
    served = true;
  }
  dispatcher.end();
}

/** The operations of the mount that `input` describes. */
export function operationsOf(input: WorkerInput): Operations {
  const image = new AttachedImage(input.image, input.memory, input.index + 1);
  return new Operations(new Tree(image, input.facts));
}

/** A worker's whole life. */
export async function runWorker(): Promise<void> {
  const input = workerData as WorkerInput;
  await prepareToAttach(input.image);
  const operations = operationsOf(input);
  parentPort!.postMessage('ready' satisfies WorkerWord);
  serve(input, operations);
}
