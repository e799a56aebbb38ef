import {
  chmodSync,
  chownSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { ERRNO } from '#src/errors.js';
import {
  isKernelFlag,
  type MountOptions,
  type MountRequest,
  mountDevice,
  unmountDevice,
} from '#src/fuse/device.js';
import { findMount, type Mount, serversOf, setReadAhead } from '#src/fuse/mountinfo.js';
import { mount } from '#src/sys/mount.js';
import { NOBODY, runScript, unmountAll, whyNoMounts } from './scripts.js';

const SOURCE = '/images/a b,c\\d=é.qcow2';
const OPTIONS: MountOptions = {
  readOnly: true,
  allowOther: false,
  defaultPermissions: true,
  maxRead: 1 << 20,
  kernelFlags: [],
};

function skipUnlessMountable(context: Mocha.Context, asNobody = false): void {
  const reason = whyNoMounts(asNobody);
  if (reason === undefined) return;
  console.log(`      skipped: ${reason}`);
  context.skip();
}

let directory: string;
let folder: string;
let file: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'qcow2fs-device-'));
  folder = join(directory, 'a folder');
  file = join(directory, 'file');
  mkdirSync(folder);
  writeFileSync(file, 'data');
});
afterEach(() => {
  unmountAll(directory);
  rmSync(directory, { recursive: true });
});

function request(target: string, options: Partial<MountOptions> = {}): MountRequest {
  return {
    source: SOURCE,
    target,
    rootIsFile: target === file,
    options: { ...OPTIONS, ...options },
  };
}

describe('isKernelFlag()', () => {
  it('knows the names of mount(8), and no others', () => {
    for (const name of ['nosuid', 'exec', 'lazytime', 'relatime']) {
      expect(isKernelFlag(name), name).to.equal(true);
    }
    for (const name of ['ro', 'rw', 'allow_other', 'constructor', '']) {
      expect(isKernelFlag(name), name).to.equal(false);
    }
  });
});

describe('mountDevice() as root', () => {
  before(function () {
    skipUnlessMountable(this);
  });

  /** Mounts, runs `look` while it is there, and unmounts. */
  function mounted(wanted: MountRequest, look: (seen: Mount, fd: number) => void): void {
    const fd = mountDevice(wanted);
    try {
      look(findMount(wanted.target)!, fd);
      unmountDevice(wanted.target, { lazy: false });
    } finally {
      closeSync(fd);
    }
    expect(findMount(wanted.target)).to.equal(undefined);
  }

  it('mounts on a folder and on a file, with the image as the source', () => {
    for (const target of [folder, file]) {
      mounted(request(target), (seen, fd) => {
        expect(seen).to.include({ type: 'fuse.qcow2fs', source: SOURCE, target, root: '/' });
        expect(seen.options.split(',')).to.include.members(['ro', 'nosuid', 'nodev', 'relatime']);
        const expected = ['user_id=0', 'group_id=0', 'default_permissions', 'max_read=1048576'];
        expect(seen.superOptions.split(',')).to.include.members(expected);
        expect(seen.superOptions).not.to.contain('allow_other');
        const flags = Number.parseInt(/flags:\s*(\d+)/.exec(fdinfo(fd))![1]!, 8);
        expect(flags & 0o2000000, 'O_CLOEXEC').not.to.equal(0);
      });
    }
  });

  it('sets the flags that are asked for, the last one wins', () => {
    const kernelFlags = ['noexec', 'noatime', 'dev', 'suid', 'sync', 'dirsync', 'async', 'nodev'];
    const wanted = request(folder, { readOnly: false, allowOther: true, kernelFlags });
    mounted(wanted, ({ options, superOptions }) => {
      expect(options.split(',').sort()).to.deep.equal(['nodev', 'noatime', 'noexec', 'rw'].sort());
      expect(superOptions.split(',')).to.include.members(['dirsync', 'allow_other']);
    });
  });

  it('lets every flag it knows through to the kernel', () => {
    const names = ['lazytime', 'strictatime', 'nodiratime', 'relatime', 'nolazytime', 'diratime'];
    for (const name of names) {
      mounted(request(folder, { kernelFlags: [name] }), ({ type }) => {
        expect(type).to.equal('fuse.qcow2fs');
      });
    }
  });

  it('finds itself as the server, where the kernel tells', () => {
    mounted(request(folder), ({ minor }, fd) => {
      const told = fdinfo(fd).includes('fuse_connection');
      if (!told) console.log('      this kernel has no fuse_connection in fdinfo');
      if (told) expect(serversOf(minor)).to.include(process.pid);
      else expect(serversOf(minor)).to.deep.equal([]);
    });
  });

  it('has a read-ahead that root can set', () => {
    mounted(request(folder), ({ major, minor }) => {
      expect(setReadAhead(major, minor, 2048)).to.equal(true);
      const path = `/sys/class/bdi/${major}:${minor}/read_ahead_kb`;
      expect(readFileSync(path, 'utf8')).to.equal('2048\n');
    });
  });

  it('mounts over another mount: the topmost one is found and unmounted', () => {
    mount('lower', folder, 'tmpfs', 0, 'size=64k');
    closeSync(mountDevice(request(folder)));
    expect(findMount(folder)).to.include({ source: SOURCE });
    unmountDevice(folder, { lazy: false });
    expect(findMount(folder)).to.include({ source: 'lower', type: 'tmpfs' });
  });

  it('says what is wrong with a target', () => {
    const refusals: [MountRequest, RegExp][] = [
      [request(join(directory, 'no')), /mount point '.*\/no' does not exist/],
      [{ ...request(file), rootIsFile: false }, /mount point '.*\/file' is not a directory/],
      [{ ...request(folder), rootIsFile: true }, /mount point '.*folder' is not a regular file/],
      [request(folder, { kernelFlags: ['shiny'] }), /unknown mount option 'shiny'/],
    ];
    for (const [wanted, message] of refusals) {
      expect(() => mountDevice(wanted)).to.throw(message);
    }
  });

  it('says of a dead mount that it is one', () => {
    closeSync(mountDevice(request(folder)));
    expect(() => mountDevice(request(folder))).to.throw(/whose server has died/);
    expect(findMount(folder)).to.include({ source: SOURCE });
    unmountDevice(folder, { lazy: false });
  });

  it('leaves no descriptor open where mounting fails', () => {
    const before = openDescriptors();
    const tooLong = { ...request(folder), source: 'x'.repeat(5000) };
    expect(() => mountDevice(tooLong)).to.throw(/mount on '.*folder': EINVAL/);
    expect(openDescriptors()).to.equal(before);
  });

  it('refuses to unmount what is no mount', () => {
    expect(() => unmountDevice(folder, { lazy: false }))
      .to.throw(/umount '.*folder': EINVAL/)
      .with.property('errno', ERRNO.EINVAL);
  });
});

function fdinfo(fd: number): string {
  return readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8');
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

describe('mountDevice() as an ordinary user', () => {
  before(function () {
    skipUnlessMountable(this, true);
  });
  beforeEach(() => {
    for (const path of [directory, folder, file]) chownSync(path, NOBODY, NOBODY);
  });

  /** Mounts in a process of the user nobody, which tells what it sees, and unmounts. */
  function mountAsNobody(wanted: MountRequest, env: Record<string, string> = {}) {
    const { status, stdout, stderr } = runScript(
      `
      import * as fs from 'node:fs';
      import { mountDevice, unmountDevice } from 'SRC/fuse/device.js';
      import { findMount, serversOf, setReadAhead } from 'SRC/fuse/mountinfo.js';
      process.env.PATH = process.env.USER_PATH ?? process.env.PATH;
      const request = JSON.parse(process.env.REQUEST);
      const fds = () => fs.readdirSync('/proc/self/fd').length;
      try {
        const before = fds();
        const fd = mountDevice(request);
        const mount = findMount(request.target);
        const info = fs.readFileSync('/proc/self/fdinfo/' + fd, 'utf8');
        const servers = serversOf(mount.minor);
        const readAhead = setReadAhead(mount.major, mount.minor, 2048);
        const extra = fds() - before;
        unmountDevice(request.target, { lazy: false });
        const self = process.pid;
        const after = findMount(request.target) ?? null;
        console.log(JSON.stringify({ mount, after, info, servers, self, readAhead, extra }));
      } catch (error) {
        console.error(error.name + ': ' + error.message);
        process.exitCode = 1;
      }`,
      { asNobody: true, env: { REQUEST: JSON.stringify(wanted), ...env } },
    );
    return { stderr, seen: status === 0 ? JSON.parse(stdout) : undefined };
  }

  it('mounts on a folder and on a file, with the image as the source', () => {
    for (const target of [folder, file]) {
      const { seen, stderr } = mountAsNobody(request(target, { kernelFlags: ['noatime'] }));
      expect(stderr).to.equal('');
      expect(seen.mount).to.include({ type: 'fuse.qcow2fs', source: SOURCE, target });
      const flags = ['ro', 'nosuid', 'nodev', 'noatime'];
      expect(seen.mount.options.split(',')).to.include.members(flags);
      const expected = [`user_id=${NOBODY}`, 'default_permissions', 'max_read=1048576'];
      expect(seen.mount.superOptions.split(',')).to.include.members(expected);
      expect(seen.info).to.match(/flags:\s*0?2\d*00000?2/);
      expect(seen.extra, 'descriptors left').to.equal(1);
      expect(seen.readAhead).to.equal(false);
      // Numbers of mounts are used again: who served the last one of this number may not be gone yet.
      if (seen.info.includes('fuse_connection')) expect(seen.servers).to.include(seen.self);
      expect(seen.after).to.equal(null);
    }
  });

  it('finds fusermount3 with an empty PATH, and leaves out the flags it does not know', () => {
    const kernelFlags = ['relatime', 'suid', 'exec', 'diratime'];
    const { seen, stderr } = mountAsNobody(request(folder, { kernelFlags }), { USER_PATH: '' });
    expect(stderr).to.equal('');
    expect(seen.mount.options.split(',')).to.include.members(['nosuid', 'nodev', 'relatime']);
  });

  it('says what forbids allow_other', function () {
    if (/^\s*user_allow_other\s*$/m.test(readFileSync('/etc/fuse.conf', 'utf8'))) {
      console.log('      skipped: user_allow_other is set in /etc/fuse.conf');
      this.skip();
    }
    const { stderr } = mountAsNobody(request(folder, { allowOther: true }));
    expect(stderr).to.match(/^ImageError: allow_other is not open to ordinary users here/);
  });

  it('says that the target belongs to somebody else, or cannot be reached', () => {
    chownSync(folder, 0, 0);
    expect(mountAsNobody(request(folder)).stderr).to.match(
      /^ImageError: cannot mount on '.*folder': user has no write access to mountpoint .*folder\n$/,
    );
    chownSync(directory, 0, 0);
    chmodSync(directory, 0o700);
    expect(mountAsNobody(request(folder)).stderr).to.match(/mount point '.*': permission denied/);
  });

  it('says that users may not open /dev/fuse', () => {
    const { stderr } = mountAsNobody(request(folder), { DEVICE_MODE: '600' });
    expect(stderr).to.match(/^ImageError: cannot open \/dev\/fuse: permission denied/);
  });

  it("passes on fusermount3's words about a flag it does not know", () => {
    const { stderr } = mountAsNobody(request(folder, { kernelFlags: ['lazytime'] }));
    expect(stderr).to.match(/cannot mount on '.*': unknown option 'lazytime'/);
  });

  it('may not unmount the mount of root', () => {
    const fd = mountDevice(request(folder));
    const { status, stdout } = runScript(
      `
      import { unmountDevice } from 'SRC/fuse/device.js';
      try {
        unmountDevice(process.env.TARGET, { lazy: false });
      } catch (error) {
        console.log(error.message);
      }`,
      { asNobody: true, env: { TARGET: folder } },
    );
    closeSync(fd);
    expect({ status, stdout }).to.have.property('status', 0);
    expect(stdout).to.match(/^cannot unmount '.*folder': .+/);
    expect(findMount(folder)).to.include({ source: SOURCE });
  });
});
