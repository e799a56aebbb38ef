/**
 * A process that mounts as the command does, but with the faulty worker:
 * `node mount-host.js IMAGE|FOLDER MOUNTPOINT WORKERS [WORKER-MODULE]`. Messages go to stderr, with
 * a trace where QCOW2FS_TEST_TRACE is set; SIGTERM unmounts. As user QCOW2FS_TEST_USER where that is set.
 */
import { statSync } from 'node:fs';
import { mountImage } from '#src/fuse/mount.js';
import { mountMany } from '#src/fuse/mount-many.js';
import { openImage } from '#src/image/open.js';
import type { ImageFile } from '#src/mount/catalogue.js';
import { openLog } from '#src/sys/log.js';
import { findUser } from '#src/sys/privileges.js';

const [path, target, workers, module = './faulty-worker.js'] = process.argv.slice(2) as [
  ...[string, string, string],
  string?,
];
const log = { target: 'stderr', format: 'text', level: 'debug' } as const;
openLog(log);
const common = {
  target,
  rootIsFile: false,
  write: { cache: 'writeback', discard: 'unmap', detectZeroes: 'off' },
  source: path,
  ownership: {},
  device: { readOnly: true, allowOther: false, defaultPermissions: false, kernelFlags: [] },
  user: findUser(process.env.QCOW2FS_TEST_USER ?? ''),
  cacheSize: 256 << 10,
  workers: Number(workers),
  log,
  trace: process.env.QCOW2FS_TEST_TRACE !== undefined,
  workerUrl: new URL(module, import.meta.url),
} as const;
const many = {
  sources: [{ name: '', path }],
  writable: false,
  openFile: (image: ImageFile) => openImage(image.path),
  format: undefined,
  maxOpen: 2,
  idle: 1,
};
const one = () => ({ image: openImage(path), snapshot: null, info: '{}', imageName: path });
const live = await (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
  ? mountMany({ ...common, ...many })
  : mountImage({ ...common, ...one() }));
process.once('SIGTERM', () => live.unmount(false));
process.stdout.write('ready\n');
await live.closed;
process.stdout.write('closed\n');
