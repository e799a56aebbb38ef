import { mkdtempSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import {
  deviceNumber,
  findMount,
  listMounts,
  parseMountinfo,
  serversOf,
  setReadAhead,
} from '#src/fuse/mountinfo.js';

describe('parseMountinfo()', () => {
  it('reads a line with optional fields', () => {
    const line = '36 35 98:7 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=c';
    expect(parseMountinfo(`${line}\n`)).to.deep.equal([
      {
        mountId: 36,
        parentId: 35,
        major: 98,
        minor: 7,
        root: '/mnt1',
        target: '/mnt2',
        type: 'ext3',
        source: '/dev/root',
        options: 'rw,noatime',
        superOptions: 'rw,errors=c',
      },
    ]);
  });

  it('undoes the octal escapes, a target named "-" among them', () => {
    const [mount] = parseMountinfo(
      '42 27 0:39 / /m\\040a\\011b\\134 rw - fuse.qcow2fs /x\\0121\\043.qcow2 rw,user_id=0',
    );
    expect(mount).to.include({ target: '/m a\tb\\', source: '/x\n1#.qcow2' });
    const [dash] = parseMountinfo('42 27 0:39 / - rw - tmpfs none rw');
    expect(dash).to.include({ target: '-', type: 'tmpfs' });
  });

  it('keeps an empty source, and leaves out lines it does not understand', () => {
    const mounts = parseMountinfo('42 27 0:39 / /a rw - tmpfs  rw\nnonsense\n\n');
    expect(mounts).to.have.length(1);
    expect(mounts[0]).to.include({ type: 'tmpfs', source: '', superOptions: 'rw' });
  });

  it('understands every line of this machine', () => {
    const text = readFileSync('/proc/self/mountinfo', 'utf8');
    expect(parseMountinfo(text)).to.have.length(text.trimEnd().split('\n').length);
  });
});

describe('findMount()', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'mountinfo-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it('finds /proc by a detour, a trailing slash and a symbolic link', () => {
    symlinkSync('/proc', join(directory, 'link'));
    for (const path of ['/proc', '/proc/', '/dev/../proc', join(directory, 'link')]) {
      expect(findMount(path), path).to.include({ target: '/proc', type: 'proc' });
    }
    expect(findMount('/')).to.include({ target: '/' });
  });

  it('finds nothing on a plain path, on a missing name and on links in a circle', () => {
    symlinkSync('b', join(directory, 'a'));
    symlinkSync('a', join(directory, 'b'));
    for (const path of [directory, join(directory, 'no'), join(directory, 'a')]) {
      expect(findMount(path), path).to.equal(undefined);
    }
  });

  it('throws where the parent does not exist', () => {
    expect(() => findMount(join(directory, 'no/no'))).to.throw(/ENOENT/);
  });
});

describe('setReadAhead()', () => {
  it('does not throw where there is no such device', () => {
    expect(setReadAhead(4095, 1_048_575, 128)).to.equal(false);
  });
});

describe('serversOf()', () => {
  it('finds nobody behind a device that is not there', () => {
    expect(serversOf(1_048_575)).to.deep.equal([]);
  });
});

describe('deviceNumber()', () => {
  it('is what stat tells, with large numbers too', () => {
    for (const target of ['/proc', '/dev']) {
      const mount = listMounts().findLast((one) => one.target === target)!;
      expect(deviceNumber(mount)).to.equal(statSync(target, { bigint: true }).dev);
    }
    expect(deviceNumber({ major: 259, minor: 300 })).to.equal(0x11032cn);
  });
});
