/**
 * The process that unmounts for an unprivileged daemon, from start to end: `TARGET DEVICE`, with the daemon's
 * socket as descriptor 3. Answers each word with an errno, 0, or -1 where the mount is not there (any more).
 */
import { readSync, writeSync } from 'node:fs';
import { errnoOf } from '../errors.js';
import type { MountDevice } from './mountinfo.js';
import { OwnMount } from './own-mount.js';

const SOCKET = 3;

const [target, device] = process.argv.slice(2) as [string, string];
const mount = new OwnMount(target, JSON.parse(device) as MountDevice);

function unmount(lazy: boolean): number {
  try {
    return mount.unmount(lazy) ? 0 : -1;
  } catch (error) {
    return errnoOf(error);
  }
}

// Who ends all processes of a service, or of a terminal, means the daemon.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1']) process.on(signal, () => {});
writeSync(SOCKET, '0');
const buffer = Buffer.alloc(64);
for (;;) {
  const word = buffer.toString('latin1', 0, readSync(SOCKET, buffer));
  if (word === '') break;
  writeSync(SOCKET, String(unmount(word === 'detach')));
}
unmount(true);
