/**
 * A worker with bugs on demand: a READ of 512 bytes at FAULT.… sectors behind an odd MiB makes it
 * fail in that way, and one at WAIT_SECTOR waits; all other requests are served as ever.
 */
import { existsSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { serve, sessionsOf, type WorkerInput } from '#src/fuse/worker.js';
import type { Operations } from '#src/mount/operations.js';
import { operationsOf } from '#src/mount/served-image.js';
import { FileStorage } from '#src/storage/file.js';
import { log } from '#src/sys/log.js';
import { faultAt, RELEASE_VARIABLE, waitsAt } from './faults.js';

const input = workerData as WorkerInput;
let dieInLoad = false;

const load = FileStorage.prototype.read;
FileStorage.prototype.read = function (...words) {
  // Ends the thread within the call: no `finally` runs, and what is locked stays locked.
  if (dieInLoad) process.exit(5);
  return load.apply(this, words);
};

function waitForRelease(): void {
  log.info('waiting for release');
  const never = new Int32Array(new SharedArrayBuffer(4));
  while (!existsSync(process.env[RELEASE_VARIABLE]!)) Atomics.wait(never, 0, 0, 5);
}

function makeFaulty(operations: Operations): Operations {
  const read = operations.read.bind(operations);
  operations.read = (id, offset, length, target, at, handle) => {
    if (waitsAt(offset, length)) waitForRelease();
    switch (faultAt(offset, length)) {
      case 'bug':
        throw new TypeError('a bug made for a test');
      case 'exit':
        return process.exit(1);
      case 'goodExit':
        return process.exit(0);
      case 'uncaught':
        throw Object.defineProperty(new Error('never seen'), 'stack', {
          get: () => {
            throw new Error('an error made for a test that nobody catches');
          },
        });
      case 'inLoad':
        dieInLoad = true;
    }
    return read(id, offset, length, target, at, handle);
  };
  return operations;
}

const sessions = await sessionsOf(input, (...words) => makeFaulty(operationsOf(...words)));
parentPort!.postMessage('ready');
serve(input, sessions);
