import type { ChildProcess } from 'node:child_process';
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { findMount } from '#src/fuse/mountinfo.js';
import {
  NOBODY,
  runScript,
  type ScriptOptions,
  startScript,
  unmountAll,
  whyNoMounts,
} from '../fuse/scripts.js';

/**
 * A daemon that answers INIT, and GETXATTR with its own id; everything else with ENOSYS.
 * After the unmount it takes a while, as if it flushed, and leaves a file.
 */
const DAEMON = `
  import * as fs from 'node:fs';
  import { mountDevice } from 'SRC/fuse/device.js';
  const { TARGET, DONE, HIDE } = process.env;
  const rootIsFile = fs.statSync(TARGET).isFile();
  const options = { readOnly: true, allowOther: false, defaultPermissions: false, maxRead: 131072,
    kernelFlags: [] };
  const fd = mountDevice({ source: 'image', target: TARGET, rootIsFile, options });
  const request = Buffer.alloc(1 << 20);
  const reply = (error, body) => {
    const header = Buffer.alloc(16);
    header.writeUInt32LE(16 + body.length, 0);
    header.writeInt32LE(-error, 4);
    request.copy(header, 8, 8, 16);
    fs.writeSync(fd, Buffer.concat([header, body]));
  };
  fs.readSync(fd, request);
  const init = Buffer.alloc(64);
  init.writeUInt32LE(7, 0);
  init.writeUInt32LE(31, 4);
  init.writeUInt32LE(4096, 20);
  reply(0, init);
  if (HIDE !== undefined) {
    const PR_SET_DUMPABLE = 4;
    const { default: koffi } = await import(HIDE);
    koffi.load(null).func('int prctl(int, ulong, ulong, ulong, ulong)')(PR_SET_DUMPABLE, 0, 0, 0, 0);
  }
  fs.writeSync(1, String(process.pid));
  for (;;) {
    let length;
    try {
      length = fs.readSync(fd, request);
    } catch (error) {
      if (error.code === 'ENODEV') break;
      if (!['ENOENT', 'EINTR', 'EAGAIN'].includes(error.code)) throw error;
      continue;
    }
    const opcode = request.readUInt32LE(4);
    if (opcode === 22) reply(0, Buffer.from(String(process.pid)));
    else if (![2, 36, 42].includes(opcode)) reply(38, Buffer.alloc(0));
  }
  await new Promise((done) => setTimeout(done, 400));
  if (DONE !== undefined) fs.writeFileSync(DONE, '');`;

const UMOUNT = `
  import { umount } from 'SRC/cli/umount.js';
  try {
    await umount(process.env.TARGET, { lazy: process.env.LAZY !== undefined });
  } catch (error) {
    console.log(error.message);
    process.exitCode = 1;
  }`;

let directory: string;
let folder: string;
let file: string;
let done: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'qcow2fs-umount-'));
  folder = join(directory, 'folder');
  file = join(directory, 'file');
  done = join(directory, 'done');
  mkdirSync(folder);
  writeFileSync(file, '');
  for (const path of [directory, folder, file]) chownSync(path, NOBODY, NOBODY);
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  unmountAll(directory);
  rmSync(directory, { recursive: true });
});

async function startDaemon(target: string, options: ScriptOptions = {}): Promise<number> {
  const env = { ...options.env, TARGET: target, DONE: done };
  const { child, word } = await startScript(DAEMON, { ...options, env });
  children.push(child);
  return Number(word);
}

/** Answers what the user would see, and whether the daemon was done by then. */
function umount(target: string, options: ScriptOptions = {}) {
  const result = runScript(UMOUNT, { ...options, env: { ...options.env, TARGET: target } });
  return { ...result, flushed: existsSync(done) };
}

const SILENT = { status: 0, stdout: '', stderr: '', flushed: true };

function skipUnlessMountable(context: Mocha.Context, asNobody: boolean): void {
  const reason = whyNoMounts(asNobody);
  if (reason === undefined) return;
  console.log(`      skipped: ${reason}`);
  context.skip();
}

function kernelTellsServers(): boolean {
  const [major, minor] = release().split('.').map(Number) as [number, number];
  return major > 6 || (major === 6 && minor >= 16);
}

describe('umount() as root', () => {
  before(function () {
    skipUnlessMountable(this, false);
  });

  it('waits for the daemon, on a folder and on a file', async () => {
    for (const target of [folder, file]) {
      await startDaemon(target);
      expect(umount(target)).to.deep.equal(SILENT);
      expect(findMount(target)).to.equal(undefined);
      rmSync(done);
    }
  });

  it('takes relative paths, trailing slashes and symbolic links', async () => {
    symlinkSync('folder', join(directory, 'link'));
    for (const path of ['folder', './folder/', 'link']) {
      await startDaemon(folder);
      expect(umount(path, { cwd: directory }), path).to.deep.equal(SILENT);
      rmSync(done);
    }
  });

  it('names the process that keeps it busy, and unmounts lazily all the same', async () => {
    await startDaemon(folder);
    const { child } = await startScript(
      `
      process.chdir(process.env.TARGET);
      process.stdout.write('there');
      setTimeout(() => {}, 60_000);`,
      { env: { TARGET: folder } },
    );
    children.push(child);
    const { status, stdout, flushed } = umount(folder);
    expect(stdout).to.match(
      new RegExp(`^umount '${folder}' \\(in use by .+ \\(process ${child.pid}\\)\\): EBUSY\n$`),
    );
    expect({ status, flushed }).to.deep.equal({ status: 1, flushed: false });
    expect(findMount(folder)).to.not.equal(undefined);
    expect(umount(folder, { env: { LAZY: '1' } })).to.include({ status: 0, stderr: '' });
    expect(findMount(folder)).to.equal(undefined);
  });

  it('does not wait while the file system is mounted elsewhere too', async () => {
    await startDaemon(folder);
    const other = join(directory, 'other');
    mkdirSync(other);
    runScript(
      `
      import { mount } from 'SRC/sys/mount.js';
      mount(process.env.FROM, process.env.TO, '', 4096, '');`,
      { env: { FROM: folder, TO: other } },
    );
    expect(findMount(other)).to.include({ source: 'image' });
    const { status, stderr, flushed } = umount(folder);
    expect({ status, flushed }).to.deep.equal({ status: 0, flushed: false });
    expect(stderr).to.contain(`still mounted on '${other}'`);
    expect(umount(other)).to.deep.equal(SILENT);
  });

  it('unmounts a mount whose daemon has died', async () => {
    const pid = await startDaemon(folder);
    const gone = new Promise((settled) => children[0]!.once('exit', settled));
    process.kill(pid, 'SIGKILL');
    await gone;
    expect(umount(folder)).to.deep.equal({ ...SILENT, flushed: false });
    expect(findMount(folder)).to.equal(undefined);
  });

  it('refuses what is no mount, and a mount of another type', () => {
    expect(umount(folder).stdout).to.equal(`nothing is mounted on '${folder}'\n`);
    expect(umount('/proc').stdout).to.equal("the mount on '/proc' is of type proc\n");
    expect(umount(join(directory, 'no/no'))).to.include({ status: 1 });
  });
});

describe('umount() of an ordinary user', () => {
  before(function () {
    skipUnlessMountable(this, true);
  });

  it('waits for the daemon of the same user', async () => {
    for (const target of [folder, file]) {
      const beside = await startDaemon(target, { asNobody: true });
      expect(umount(target, { asNobody: true, beside })).to.deep.equal(SILENT);
      rmSync(done);
    }
  });

  it('tells EBUSY from the words of fusermount3', async () => {
    const beside = await startDaemon(folder, { asNobody: true });
    const { child } = await startScript(
      `
      process.chdir(process.env.TARGET);
      process.stdout.write('there');
      setTimeout(() => {}, 60_000);`,
      { asNobody: true, beside, env: { TARGET: folder } },
    );
    children.push(child);
    const { status, stdout } = umount(folder, { asNobody: true, beside });
    expect(stdout).to.contain(`(process ${child.pid})): EBUSY`);
    expect(status).to.equal(1);
    child.kill('SIGKILL');
    await new Promise((settled) => child.once('exit', settled));
    expect(umount(folder, { asNobody: true, beside })).to.deep.equal(SILENT);
  });

  it("lets root unmount a user's mount and wait, where the kernel tells the server", async function () {
    if (!kernelTellsServers()) {
      console.log('      skipped: no fuse_connection in fdinfo before Linux 6.16');
      this.skip();
    }
    const beside = await startDaemon(folder, { asNobody: true });
    expect(umount(folder, { beside })).to.deep.equal(SILENT);
  });

  it("believes the mount's own word where the daemon's descriptors cannot be seen", async () => {
    // Of a process that is not dumpable, /proc shows the descriptors to root only.
    const env = { HIDE: import.meta.resolve('koffi') };
    const beside = await startDaemon(folder, { asNobody: true, env });
    const listed = runScript(
      'import * as fs from "node:fs"; fs.readdirSync("/proc/" + process.env.PID + "/fd");',
      {
        asNobody: true,
        env: { PID: String(beside) },
      },
    );
    expect(listed.stderr).to.contain('EACCES');
    expect(umount(folder, { asNobody: true, beside })).to.deep.equal(SILENT);
  });
});
