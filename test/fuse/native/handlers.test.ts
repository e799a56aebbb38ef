/** Requests of fuse-native, from its arguments to what is called back: over a disk in memory. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { ERRNO, ImageError } from '#src/errors.js';
import { makeHandlers } from '#src/fuse/native/handlers.js';
import { PathFiles } from '#src/fuse/native/path-files.js';
import { OPCODE_NAMES } from '#src/fuse/opcodes.js';
import type { AttachedImage } from '#src/image/attach.js';
import { Changes } from '#src/mount/changes.js';
import type { MountFacts } from '#src/mount/facts.js';
import { allocateOpenFiles, OpenFiles } from '#src/mount/open-files.js';
import { Operations } from '#src/mount/operations.js';
import { allocateStatus } from '#src/mount/status.js';
import { Tree } from '#src/mount/tree.js';
import { allocateMountState, MountState } from '#src/shared/mount-state.js';
import { RequestCounters, requestTotals } from '#src/shared/request-counters.js';
import { allocateToldSizes } from '#src/shared/told-sizes.js';
import { FakeImage, KIB, START } from '../../helpers/fake-image.js';

const O_RDWR = 2;
const O_DSYNC = 0o10000;
const SETATTR = 4;
const TIME = { sec: 1, nsec: 2_900_000 };

function harness({ writable = true } = {}) {
  const image = new FakeImage();
  const status = allocateStatus(1, OPCODE_NAMES);
  const facts: MountFacts = {
    ...{ uid: 3, gid: 4, fileMode: 0o444, directoryMode: 0o555, diskMode: 0o644 },
    ...{ atime: TIME, mtime: TIME, ctime: TIME, btime: TIME, imageBlocks: 0 },
    ...{ info: '{}', imageName: 'vm', status, snapshot: null, rootIsFile: false, stem: 'vm' },
    told: new Uint8Array(16),
    toldSizes: allocateToldSizes(),
  };
  if (!writable) Object.assign(image.description, { writable });
  const { disk, writer } = image;
  const openFiles = new OpenFiles(allocateOpenFiles(), disk, 1, 0);
  const tree = new Tree(
    image as unknown as AttachedImage,
    facts,
    writable ? openFiles.windows : null,
  );
  const state = new MountState(allocateMountState(), 1);
  const changes = new Changes({ tree, disk, writer, files: openFiles, state });
  const operations = new Operations(tree, writable ? changes : null);
  const lines: string[] = [];
  const log = {
    error: (line: string) => void lines.push(line),
    debug: (line: string) => void lines.push(line),
  };
  const { handlers } = makeHandlers({
    files: new PathFiles(operations),
    state,
    counters: new RequestCounters(status.requests, 0),
    log,
    trace: false,
  });
  /** Settles with what is called back. */
  const ask = (name: string, ...args: unknown[]): Promise<unknown[]> =>
    new Promise((resolve) => {
      const handler = handlers[name] as (...words: unknown[]) => void;
      handler(...args, (...answer: unknown[]) => resolve(answer));
    });
  return { image, operations, state, status, lines, ask };
}

/** The same, of one that answers a number alone. */
async function code(answer: Promise<unknown[]>): Promise<number> {
  const [result] = await answer;
  return result as number;
}

describe('the handlers for fuse-native', () => {
  it('find files by their paths, and answer what stat tells', async () => {
    const { ask } = harness();
    const [result, stat] = await ask('getattr', '/disk.partitions/1.raw');
    expect(result).to.equal(0);
    expect(stat).to.include({ mode: 0o100644, uid: 3, gid: 4, size: 64 * KIB, nlink: 1 });
    expect(Number.isInteger((stat as { mtime: number }).mtime)).to.equal(true);
    expect((await ask('getattr', '/'))[1]).to.include({ ino: 1, mode: 0o40755 });
    expect(await code(ask('getattr', '/disk.raw/x'))).to.equal(-ERRNO.ENOTDIR);
    expect(await code(ask('getattr', '/nothing'))).to.equal(-ERRNO.ENOENT);
  });

  it('list folders with what readdir(3) tells', async () => {
    const { ask } = harness();
    const [result, names, stats] = await ask('readdir', '/disk.snapshots');
    expect(result).to.equal(0);
    expect(names).to.include.members(['.', '..', 'one.raw', 'a%2Fb.raw', 'one.partitions']);
    const at = (names as string[]).indexOf('one.raw');
    expect((stats as { mode: number }[])[at]).to.include({ mode: 0o100000 });
    expect(await code(ask('readdir', '/disk.raw'))).to.equal(-ERRNO.ENOTDIR);
  });

  it('read and write open files by their numbers, and at once durably where they are to', async () => {
    const { ask, image } = harness();
    const [, plain] = await ask('open', '/disk.raw', O_RDWR);
    const [, durable] = await ask('open', '/disk.raw', O_RDWR | O_DSYNC);
    expect(plain).to.not.equal(durable);
    image.bytes.write('here', 70_000);
    const target = Buffer.alloc(10);
    expect(await code(ask('read', '/disk.raw', plain, target, 4, 70_000))).to.equal(4);
    expect(target.toString('latin1', 0, 4)).to.equal('here');
    expect(await code(ask('read', '/disk.raw', plain, target, 10, 256 * KIB - 3))).to.equal(3);
    const bytes = Buffer.from('there');
    expect(await code(ask('write', '/disk.raw', plain, bytes, 5, 80_000))).to.equal(5);
    expect(image.calls.map(([name]) => name)).to.deep.equal(['write']);
    expect(await code(ask('write', '/disk.raw', durable, bytes, 5, 90_000))).to.equal(5);
    expect(image.calls.map(([name]) => name)).to.deep.equal(['write', 'write', 'flush']);
    expect(await code(ask('release', '/disk.raw', plain))).to.equal(0);
    expect(await code(ask('read', '/disk.raw', plain, target, 4, 0))).to.equal(-ERRNO.EBADF);
  });

  it('keep the place of a partition that is open, under its path too', async () => {
    const { ask, image } = harness();
    const path = '/disk.partitions/1.raw';
    const [, file] = await ask('open', path, O_RDWR);
    image.bytes.write('first', START);
    image.bytes.fill(0, 0, 512);
    const target = Buffer.alloc(5);
    expect(await code(ask('read', path, file, target, 5, 0))).to.equal(5);
    expect(target.toString()).to.equal('first');
    expect((await ask('getattr', path))[1]).to.include({ size: 64 * KIB });
    await ask('release', path, file);
    expect(await code(ask('getattr', path))).to.equal(-ERRNO.ENOENT);
  });

  it('tell the size of what is made on reading while it is open, where the page cache asks', async () => {
    const { ask } = harness({ writable: false });
    const path = '/.qcow2fs/status.json';
    expect((await ask('getattr', path))[1]).to.include({ size: 0 });
    const [, file] = await ask('open', path, 0);
    const { size } = (await ask('getattr', path))[1] as { size: number };
    const target = Buffer.alloc(size + 100);
    expect(await code(ask('read', path, file, target, size + 100, 0))).to.equal(size);
    expect(JSON.parse(target.toString('utf8', 0, size))).to.include({ workers: 1 });
    await ask('release', path, file);
    expect((await ask('getattr', path))[1]).to.include({ size: 0 });
  });

  it('never put more into a buffer for attributes than it has room for', async () => {
    const { ask } = harness();
    const name = 'user.qcow2.daemon-pid';
    const pid = String(process.pid);
    const room = (size: number) => ask('getxattr', '/', name, Buffer.alloc(size));
    expect(await code(room(0))).to.equal(pid.length);
    expect(await code(room(pid.length))).to.equal(pid.length);
    expect(await code(room(pid.length - 1))).to.equal(-ERRNO.ERANGE);
    expect(await code(ask('listxattr', '/', Buffer.alloc(3)))).to.equal(-ERRNO.ERANGE);
    expect(await code(ask('listxattr', '/', Buffer.alloc(0)))).to.be.above(20);
    expect(await code(ask('getxattr', '/', 'security.x', Buffer.alloc(9)))).to.equal(
      -ERRNO.ENODATA,
    );
  });

  it('let attributes be set to what they are, and forbid the rest', async () => {
    const { ask, image } = harness();
    expect(await code(ask('chmod', '/disk.raw', 0o100644))).to.equal(0);
    expect(await code(ask('chmod', '/disk.raw', 0o100600))).to.equal(-ERRNO.EPERM);
    expect(await code(ask('chown', '/disk.raw', 0xffff_ffff, 4))).to.equal(0);
    expect(await code(ask('chown', '/disk.raw', 9, 0xffff_ffff))).to.equal(-ERRNO.EPERM);
    expect(await code(ask('utimens', '/disk.raw', 5, 5))).to.equal(0);
    expect(await code(ask('truncate', '/disk.raw', 1000))).to.equal(0);
    expect(image.calls).to.deep.equal([['resize', 1024]]);
    for (const name of ['mkdir', 'rmdir', 'link', 'symlink']) {
      expect(await code(ask(name, '/x', '/y'))).to.equal(-ERRNO.EPERM);
    }
    expect(await code(ask('mknod', '/disk.snapshots/x.raw', 0o010644, 0))).to.equal(-ERRNO.EPERM);
    expect(await code(ask('removexattr', '/', 'user.x'))).to.equal(-ERRNO.EOPNOTSUPP);
  });

  it('wait for a file that is being closed, with others served meanwhile, and not for ever', async () => {
    const { ask } = harness();
    const path = '/disk.snapshots/one.raw';
    const [, file] = await ask('open', path, 0);
    const removed = code(ask('unlink', path));
    await sleep(20);
    expect(await code(ask('release', path, file))).to.equal(0);
    expect(await removed).to.equal(0);
    const other = '/disk.snapshots/a%2Fb.raw';
    await ask('open', other, 0);
    expect(await code(ask('unlink', other))).to.equal(-ERRNO.EBUSY);
  });

  it('answer bugs and broken images with EIO, and tell the log', async () => {
    const { ask, image, lines } = harness();
    const [, file] = await ask('open', '/disk.raw', O_RDWR);
    const bytes = Buffer.alloc(512);
    image.failure = new ImageError('corrupt', 'EIO', 'broken');
    expect(await code(ask('write', '/disk.raw', file, bytes, 512, 0))).to.equal(-ERRNO.EIO);
    image.failure = new TypeError('a bug');
    expect(await code(ask('write', '/disk.raw', file, bytes, 512, 0))).to.equal(-ERRNO.EIO);
    expect(lines[0]).to.equal("WRITE '/disk.raw': broken");
    expect(lines[1]).to.match(/^WRITE '\/disk\.raw': internal error: TypeError: a bug/);
  });

  it('serve nothing any more once the mount is stopped', async () => {
    const { ask, state, image } = harness();
    state.stop();
    expect(await code(ask('getattr', '/'))).to.equal(-ERRNO.ENOTCONN);
    expect(await code(ask('truncate', '/disk.raw', 0))).to.equal(-ERRNO.ENOTCONN);
    expect(image.calls).to.deep.equal([]);
  });

  it('refuse all that writes where the mount is read-only', async () => {
    const { ask } = harness({ writable: false });
    const calls: [string, ...unknown[]][] = [
      ['open', '/disk.raw', O_RDWR],
      ['create', '/disk.snapshots/x.raw', 0o644],
      ['unlink', '/disk.snapshots/one.raw'],
      ['rename', '/disk.snapshots/one.raw', '/disk.snapshots/x.raw'],
      ['truncate', '/disk.raw', 0],
      ['utimens', '/disk.raw', 0, 0],
      ['setxattr', '/', 'user.qcow2.control.create', Buffer.from('x')],
      ['mkdir', '/x', 0o755],
      ['removexattr', '/', 'user.x'],
    ];
    for (const [name, ...args] of calls) {
      expect(await code(ask(name, ...args)), name).to.equal(-ERRNO.EROFS);
    }
    expect(await code(ask('fsync', '/disk.raw', 0, 1))).to.equal(0);
  });

  it("count requests by the kernel's names", async () => {
    const { ask, status } = harness();
    await ask('chmod', '/disk.raw', 0o600);
    await ask('truncate', '/disk.raw', 512);
    expect(requestTotals(status.requests).get(SETATTR)).to.include({ count: 2, errors: 1 });
  });
});
